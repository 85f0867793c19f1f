#!/bin/sh
set -eu
mkdir -p "$(dirname "$2")"
{ echo "#!/bin/sh"; echo "# version $VERSION"; cat "$1"/*.go "$1"/internal/*.go; } >"$2"
chmod 755 "$2"
