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
  local when missing=() name
  for when in "$@"; do
    for name in $(sed -n "s/^$when //p" tools/packages.txt); do
      [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "mlhost: installing ${missing[*]}"
  local log
  log=$(log_of apt)
  if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
         as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1
  then
    tail -20 "$log" >&2
    echo "mlhost: apt failed; the whole log is $log" >&2
    return 1
  fi
}

# need_venv NAME REQUIREMENTS: a Python environment outside the tree, made again when its requirements change.
need_venv() {
  local dir=$MLHOST_VENVS/venv-$1 python=/usr/bin/python3
  if [ -f "$dir/.requirements" ] && cmp -s "$2" "$dir/.requirements"; then return 0; fi
  echo "mlhost: making the Python environment $dir"
  mkdir -p "$MLHOST_VENVS"
  rm -rf "$dir"
  local log
  log=$(log_of "venv-$1")
  if ! { "$python" -m venv "$dir" && "$dir/bin/pip" install -q --disable-pip-version-check -r "$2"; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "mlhost: the Python environment $1 failed; the whole log is $log" >&2
    return 1
  fi
  cp "$2" "$dir/.requirements"
}
