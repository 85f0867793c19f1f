# shellcheck shell=bash
# need_kubectl: the path of Debian's kubectl.
need_kubectl() {
  local dir=$MLHOST_VENVS/kubernetes-client lock work
  exec {lock}>"$dir.lock" && flock "$lock" || return 1
  if [ ! -x "$dir/usr/bin/kubectl" ]; then
    work=$(mktemp -d "$dir.XXXXXX")
    if ! (cd "$work" && { apt-get download -q kubernetes-client || { as_root apt-get update -q && apt-get download -q kubernetes-client; }; } &&
          dpkg -x kubernetes-client_*.deb . && rm -f kubernetes-client_*.deb) >&2; then
      rm -rf "$work"
      exec {lock}>&-
      return 1
    fi
    rm -rf "$dir"
    mv "$work" "$dir"
  fi
  exec {lock}>&-
  echo "$dir/usr/bin/kubectl"
}
