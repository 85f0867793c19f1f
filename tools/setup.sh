# What a fresh Debian 12 needs: sourced by ./dev and the test drivers. The list is tools/packages.txt.

MLHOST_VENVS=${MLHOST_VENVS:-$HOME/.cache/mlhost}
export MLHOST_VENVS

log_of() {
  local dir=${TMPDIR:-/tmp}/mlhost-setup-$(id -u)
  mkdir -p "$dir"
  echo "$dir/$1.log"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "mlhost: root or sudo is needed for: $*" >&2; return 1
  fi
}

# need_packages build|test: installs what is missing of the list, in one apt call. Quick when all is there.
need_packages() {
  local when name wanted=() missing
  for when in "$@"; do
    while read -r name; do wanted+=("$name"); done < <(sed -n "s/^$when //p" tools/packages.txt)
  done
  missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) \
    <(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p' | sort -u))
  [ -n "$missing" ] || return 0
  echo "mlhost: installing" $missing
  local log
  log=$(log_of apt)
  if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
         as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends $missing; } \
      >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "mlhost: apt failed; the whole log is $log" >&2
    return 1
  fi
}

# configure PRESET DIR [cmake arguments]: once; later changes of CMakeLists.txt are noticed by ninja. A folder that came
# along with a copy of the tree is made anew.
configure() {
  local preset=$1 dir=$2 log
  shift 2
  if [ -f "$dir/build.ninja" ] && grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$dir/CMakeCache.txt"; then return 0; fi
  rm -rf "$dir/CMakeCache.txt" "$dir/CMakeFiles"
  log=$(log_of "cmake-${dir##*/}")
  echo "mlhost: building into $dir/"
  if ! cmake --preset "$preset" -B "$dir" "$@" >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "mlhost: cmake failed; the whole log is $log" >&2
    return 1
  fi
}

# compile DIR TARGETS...: prints errors only.
compile() {
  local dir=$1
  shift
  (set -o pipefail; ninja -C "$dir" --quiet "$@" 2>&1 | sed '/^ninja: no work to do\.$/d; /^-- /d')
}

# Our C sources, from a clone and from a tarball.
c_sources() {
  find host include tests docs tools -name '*.[ch]' -not -path '*/build*' | sort
}

# need_venv NAME REQUIREMENTS: a Python environment outside the tree, made again when its requirements change.
need_venv() {
  local dir=$MLHOST_VENVS/venv-$1 log lock
  mkdir -p "$MLHOST_VENVS"
  exec {lock}>"$dir.lock" && flock "$lock" || return 1
  if cmp -s "$2" "$dir/.requirements"; then exec {lock}>&-; return 0; fi
  echo "mlhost: making the Python environment $dir"
  rm -rf "$dir"
  log=$(log_of "venv-$1")
  if ! { /usr/bin/python3 -m venv "$dir" && "$dir/bin/pip" install -q --disable-pip-version-check -r "$2"; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "mlhost: the Python environment $1 failed; the whole log is $log" >&2
    exec {lock}>&-
    return 1
  fi
  cp "$2" "$dir/.requirements"
  exec {lock}>&-
}

# need_node NAME DIR: the npm packages that DIR/package-lock.json pins, in $MLHOST_VENVS/node-NAME/node_modules. Node.js is the
# machine's, else Debian's.
need_node() {
  local dir=$MLHOST_VENVS/node-$1 log lock
  if ! command -v npm >/dev/null; then need_packages node || return 1; fi
  mkdir -p "$MLHOST_VENVS"
  exec {lock}>"$dir.lock" && flock "$lock" || return 1
  if cmp -s "$2/package-lock.json" "$dir/.lock"; then exec {lock}>&-; return 0; fi
  echo "mlhost: installing npm packages into $dir"
  rm -rf "$dir"
  mkdir "$dir"
  cp "$2/package.json" "$2/package-lock.json" "$dir/"
  log=$(log_of "node-$1")
  if ! (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "mlhost: npm failed; the whole log is $log" >&2
    exec {lock}>&-
    return 1
  fi
  cp "$2/package-lock.json" "$dir/.lock"
  exec {lock}>&-
}

# need_kube_apiserver: Kubernetes' own API server, as a peer of the client's tests: built once, outside the tree, by Debian's
# Go. What the build needs besides the program goes again.
need_kube_apiserver() {
  local dir=$MLHOST_VENVS/kube-apiserver from=tests/integration/kubernetes go=/usr/lib/go-1.19/bin/go log lock
  mkdir -p "$MLHOST_VENVS"
  exec {lock}>"$dir.lock" && flock "$lock" || return 1
  if cmp -s "$from/go.sum" "$dir/.built"; then exec {lock}>&-; return 0; fi
  echo "mlhost: building kube-apiserver in $dir (some minutes, once)"
  log=$(log_of kube-apiserver)
  [ ! -d "$dir" ] || chmod -R u+w "$dir"
  rm -rf "$dir" && mkdir -p "$dir" && cp "$from"/{main.go,go.mod,go.sum} "$dir"
  if ! (cd "$dir" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOPATH=$dir/path GOCACHE=$dir/cache "$go" build -trimpath -o kube-apiserver .) \
      >"$log" 2>&1; then
    tail -5 "$log" >&2
    echo "mlhost: kube-apiserver could not be built; the whole log is $log" >&2
    exec {lock}>&-
    return 1
  fi
  chmod -R u+w "$dir/path" && rm -rf "$dir/path" "$dir/cache"
  cp "$from/go.sum" "$dir/.built"
  exec {lock}>&-
}

# need_oci_conformance: the conformance suite of the OCI distribution specification, as a peer of the registry's tests: built
# once, outside the tree, by any Go that is new enough for it; Debian 12 has none, so it is sid's there.
need_oci_conformance() {
  local dir=$MLHOST_VENVS/oci-conformance version=v0.0.0-20260831232431-97274622c111 go='' candidate log lock
  mkdir -p "$MLHOST_VENVS"
  exec {lock}>"$dir.lock" && flock "$lock" || return 1
  if [ "$(cat "$dir/.built" 2>/dev/null)" = "$version" ]; then exec {lock}>&-; return 0; fi
  for candidate in "$(command -v go)" /usr/local/go/bin/go /usr/lib/go-1.*/bin/go; do
    [ -x "$candidate" ] && "$candidate" version | grep -qE 'go1\.(2[4-9]|[3-9][0-9])' && go=$candidate && break
  done
  if [ -z "$go" ] && ! go=$(tests/peers go); then exec {lock}>&-; return 1; fi
  echo "mlhost: building the OCI conformance suite in $dir (half a minute, once)"
  log=$(log_of oci-conformance)
  [ ! -d "$dir" ] || chmod -R u+w "$dir"
  rm -rf "$dir" && mkdir -p "$dir"
  if ! GOTOOLCHAIN=local GOFLAGS= GOPATH=$dir/path GOCACHE=$dir/cache GOBIN=$dir timeout 300 \
      "$go" install -trimpath "github.com/opencontainers/distribution-spec/conformance@$version" >"$log" 2>&1; then
    tail -5 "$log" >&2
    echo "mlhost: the OCI conformance suite could not be built; the whole log is $log" >&2
    exec {lock}>&-
    return 1
  fi
  chmod -R u+w "$dir/path" && rm -rf "$dir/path" "$dir/cache"
  echo "$version" >"$dir/.built"
  exec {lock}>&-
}
