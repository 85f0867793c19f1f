#!/usr/bin/env bash
# Our registry client against Debian's docker-registry (anonymous, basic, bearer token, TLS with a CA of its own), skopeo on what we
# built, and what is said when a registry is wrong. $MLHOST is the program. Prints "N passed, N failed" last.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for tool in docker-registry skopeo htpasswd openssl python3 curl; do
  command -v "$tool" >/dev/null || { echo "SKIPPED registry: no $tool"; echo "0 passed, 0 failed"; exit 0; }
done
MLHOST=${MLHOST:-$here/../../build/mlhost}
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$work"' EXIT
passed=0 failed=0
export DOCKER_CONFIG=$work/docker HOME=$work
mkdir -p "$work/ws/ctx/sub" "$DOCKER_CONFIG"
ws=$work/ws

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# registry NAME PORT EXTRA-YAML: starts docker-registry.
registry() {
  cat >"$work/$1.yml" <<YAML
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $work/$1 }, delete: { enabled: true } }
http: { addr: "127.0.0.1:$2"$4 }
$3
YAML
  docker-registry serve "$work/$1.yml" >"$work/$1.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 100); do
    curl -ks -o /dev/null "$5://127.0.0.1:$2/v2/" && return
    kill -0 "${pids[-1]}" 2>/dev/null || break
    sleep 0.05
  done
  echo "docker-registry $1 did not start"; cat "$work/$1.log"
}
# run LUA: the body of a stage; its log is in $work/log. Prints nothing.
run() {
  {
    echo 'local registry, fs = require "registry", require "fs"'
    echo 'pipeline "t" { permissions = { net = { "127.0.0.1", "localhost" }, write = { "unpacked" } } }'
    echo "stage \"s\" { run = function(cx) $1 end }"
  } >"$ws/t.lua"
  (cd "$ws" && timeout 60 "$MLHOST" run t.lua --output plain "${profile[@]}") >"$work/log" 2>&1
}
profile=()
# ok NAME LUA WANTED...: it runs, and the log says all of that. fails NAME LUA WANTED...: it does not.
check() {
  local name=$1 wanted_status=$2 status=$3 text
  shift 3
  if [ "$wanted_status" = 0 ] && [ "$status" != 0 ] || [ "$wanted_status" != 0 ] && [ "$status" = 0 ]; then
    failed=$((failed + 1)); echo "FAIL $name: status $status"; cat "$work/log"; return
  fi
  for text; do
    grep -qF -- "$text" "$work/log" || { failed=$((failed + 1)); echo "FAIL $name: no '$text' in"; cat "$work/log"; return; }
  done
  passed=$((passed + 1)); echo "ok   $name"
}
ok() { local name=$1 body=$2; shift 2; run "$body"; check "$name" 0 $? "$@"; }
fails() { local name=$1 body=$2; shift 2; run "$body"; check "$name" 1 $? "$@"; }
command_ok() { local name=$1; shift; "$@" >"$work/log" 2>&1; check "$name" 0 $?; }
config() { printf '%s\n' "$1" >"$ws/mlhost.yaml"; }

printf 'FROM scratch\nLABEL test=yes\nWORKDIR /data\nCOPY . /data\nENTRYPOINT ["/data/x"]\n' >"$ws/ctx/Dockerfile"
head -c 300000 /dev/urandom >"$ws/ctx/sub/blob"
echo '#!/bin/sh' >"$ws/ctx/x"; chmod +x "$ws/ctx/x"
config '{}'
build='local image = registry.build { context = "ctx", name = "t", tag = "1" }'

# ---- anonymous ----
plain=$(free_port)
registry plain "$plain" "" "" http
ok "push" "$build
  local p = image:push { to = '127.0.0.1:$plain/team/x:1' }
  log.info('skipped %s sent %d ref %s', p.skipped, p.sent, p:ref())" "skipped false sent 3 ref 127.0.0.1:$plain/team/x:1"
ok "push of what is there is skipped" "$build
  local p = image:push { to = '127.0.0.1:$plain/team/x:1' } log.info('skipped %s sent %d', p.skipped, p.sent)" "skipped true sent 0"
ok "another tag sends no blob" "$build
  local p = image:push { to = '127.0.0.1:$plain/team/x:2' } log.info('skipped %s sent %d', p.skipped, p.sent)" "skipped false sent 0"
ok "blobs are mounted from a repository that has them" "$build
  local p = image:push { to = '127.0.0.1:$plain/other:1', from = 'team/x' } log.info('sent %d', p.sent)" "sent 0"
ok "tags, exists, inspect" "
  log.info('tags %s', table.concat(registry.tags '127.0.0.1:$plain/team/x', ','))
  log.info('there %s, not there %s', registry.exists '127.0.0.1:$plain/team/x:1' ~= nil, registry.exists '127.0.0.1:$plain/team/x:9')
  log.info('label %s', registry.inspect('127.0.0.1:$plain/team/x:1').config.Labels.test)" \
  "tags 1,2" "there true, not there nil" "label yes"
digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://127.0.0.1:$plain/team/x:1")
ok "the digest is the one that skopeo sees" "assert(registry.exists '127.0.0.1:$plain/team/x:1' == '$digest')"
command_ok "skopeo copies our image" skopeo copy --src-tls-verify=false "docker://127.0.0.1:$plain/team/x:1" "oci:$work/layout:x"
command_ok "skopeo copies it back, as a Docker image" skopeo copy --dest-tls-verify=false --format v2s2 "oci:$work/layout:x" \
  "docker://127.0.0.1:$plain/docker:1"
rm -rf "$ws/.mlhost/cache"
ok "pull by tag, by digest, and unpack" "
  local image = registry.pull '127.0.0.1:$plain/team/x:1'
  assert(image.digest == '$digest')
  registry.pull '127.0.0.1:$plain/team/x@$digest'
  registry.unpack('127.0.0.1:$plain/docker:1', 'unpacked')"
command_ok "the unpacked files are those of the context" cmp "$ws/unpacked/data/sub/blob" "$ws/ctx/sub/blob"
rm -rf "$ws/unpacked"
ok "FROM an image of the registry, COPY --from another" "
  fs.write(cx.out 'Dockerfile', 'FROM 127.0.0.1:$plain/docker:1\nCOPY --from=127.0.0.1:$plain/team/x:1 /data/x /y\n')
  local image = registry.build { context = 'ctx', dockerfile = cx.out 'Dockerfile' }
  image:push { to = '127.0.0.1:$plain/derived:1' }
  log.info('layers %d, label %s', image.layers, registry.inspect('127.0.0.1:$plain/derived:1').config.Labels.test)" "layers 3, label yes"
command_ok "skopeo reads what was derived" skopeo copy --src-tls-verify=false "docker://127.0.0.1:$plain/derived:1" "dir:$work/derived"
config "profiles: { plain: { registry: { url: 'http://127.0.0.1:$plain/base' } } }"
profile=(--profile plain)
ok "ensure builds once; the profile's registry and its path are the default" "
  local first = registry.ensure { context = 'ctx', name = 'e' }
  local second = registry.ensure { context = 'ctx', name = 'e' }
  assert(first.ref == second.ref and first.digest == second.digest)
  log.info('%s %s %s', first.built, second.built, first.ref)" "true false 127.0.0.1:$plain/base/e:"
ok "the base image, and a build on it" "
  local base = registry.base_image()
  fs.write(cx.out 'Dockerfile', 'ARG BASE\nFROM \${BASE}\nCOPY x /x\n')
  local image = registry.ensure { context = 'ctx', dockerfile = cx.out 'Dockerfile', name = 'onbase', args = { BASE = base.ref } }
  log.info('base %s pushed %s, built %s', base.ref, base.pushed, image.built)" "base 127.0.0.1:$plain/base/mlhost/base:" \
  "pushed true, built true"
profile=()
config '{}'

# ---- what a registry can do wrong ----
blob=$(skopeo inspect --raw --tls-verify=false "docker://127.0.0.1:$plain/team/x:1" |
  python3 -c 'import json,sys; print(max(json.load(sys.stdin)["layers"], key=lambda l: l["size"])["digest"][7:])')
file=$work/plain/docker/registry/v2/blobs/sha256/${blob:0:2}/$blob/data
cp "$file" "$work/intact"
printf 'X' | dd of="$file" bs=1 seek=1000 conv=notrunc 2>/dev/null
rm -rf "$ws/.mlhost/cache"
fails "a damaged blob is refused" "registry.pull '127.0.0.1:$plain/team/x:1'" "sha256:$blob" "expected was" "nothing was kept"
command_ok "and not kept" test ! -e "$ws/.mlhost/cache/oci/blobs/sha256/$blob" -a -z "$(ls "$ws/.mlhost/cache/oci/uploads")"
head -c 1000 "$work/intact" >"$file"
fails "a blob cut short is refused" "registry.pull '127.0.0.1:$plain/team/x:1'" "sha256:$blob"
cp "$work/intact" "$file"
ok "the same blob, intact" "registry.pull '127.0.0.1:$plain/team/x:1'"
faults=$(free_port)
python3 "$here/registry_servers.py" faults "$faults" >"$work/faults.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do curl -s -o /dev/null "http://127.0.0.1:$faults/" && break; sleep 0.05; done
fails "401" "registry.exists '127.0.0.1:$faults/unauthorized:1'" "401" "docker login 127.0.0.1:$faults"
fails "403" "registry.manifest '127.0.0.1:$faults/denied:1'" "403" "DENIED: requested access is denied"
fails "404" "registry.tags '127.0.0.1:$faults/nothing'" "404" "NAME_UNKNOWN: repository name not known" "is the name right?"
fails "429" "registry.manifest '127.0.0.1:$faults/busy:1'" "429" "TOOMANYREQUESTS: slow down" "slow down, Retry-After: 0"
fails "500" "registry.manifest '127.0.0.1:$faults/broken:1'" "500" "look at the service's own log"
fails "a manifest that is not its digest" "registry.pull '127.0.0.1:$faults/wrong:1'" "it should have sha256:" "nothing was kept"
fails "a manifest that is none" "registry.pull '127.0.0.1:$faults/garbage:1'" "config is missing"
fails "a token service of another kind" "registry.tags '127.0.0.1:$faults/cleartext'" "without encryption"
fails "nobody there" "registry.tags '127.0.0.1:$(free_port)/x'" "127.0.0.1"
fails "a host that was not granted" "registry.tags 'registry.example.org/x'" "registry.example.org" "net"
fails "a bad reference" "registry.pull 'Not/Lower:1'" "is no image reference"

# ---- basic ----
basic=$(free_port)
htpasswd -Bbc "$work/htpasswd" ann secret-word 2>/dev/null
registry basic "$basic" "auth: { htpasswd: { realm: t, path: $work/htpasswd } }" "" http
fails "basic: nobody" "$build image:push { to = '127.0.0.1:$basic/x:1' }" "not authenticated" "there are no credentials"
config "profiles: { basic: { registry: { url: 'http://127.0.0.1:$basic', auth: { type: basic, username: ann, password: { env: PW } } } } }"
profile=(--profile basic)
PW=secret-word ok "basic: by the profile" "$build log.info('ref %s', image:push():ref())" "ref 127.0.0.1:$basic/t:1"
PW=wrong fails "basic: a wrong password" "registry.tags 't'" "401" "does not accept the credentials of mlhost.yaml"
profile=()
config '{}'
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$basic" "$(printf 'ann:secret-word' | base64)" >"$DOCKER_CONFIG/config.json"
ok "basic: by Docker's config.json" "log.info('tags %s', table.concat(registry.tags '127.0.0.1:$basic/t', ','))" "tags 1"
mkdir "$work/bin"
cat >"$work/bin/docker-credential-test" <<'HELPER'
#!/bin/sh
read -r host
[ "$1" = get ] && printf '{"ServerURL":"%s","Username":"ann","Secret":"secret-word"}' "$host"
HELPER
chmod +x "$work/bin/docker-credential-test"
printf '{"credHelpers":{"127.0.0.1:%s":"test"}}' "$basic" >"$DOCKER_CONFIG/config.json"
PATH=$work/bin:$PATH ok "basic: by a credential helper" "log.info('tags %s', table.concat(registry.tags '127.0.0.1:$basic/t', ','))" "tags 1"
fails "a helper that is not installed" "registry.tags '127.0.0.1:$basic/t'" "docker-credential-test" "install it"
rm "$DOCKER_CONFIG/config.json"

# ---- bearer tokens ----
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/token.key" -out "$work/token.crt" -days 2 -subj /CN=token 2>/dev/null
token=$(free_port) bearer=$(free_port)
python3 "$here/registry_servers.py" token "$token" "$work/token.key" "$work/token.crt" bob his-password >"$work/token.log" 2>&1 &
pids+=($!)
registry bearer "$bearer" "auth: { token: { realm: 'http://127.0.0.1:$token/token', service: t, issuer: mlhost-test, rootcertbundle: $work/token.crt } }" "" http
for _ in $(seq 100); do curl -s -o /dev/null "http://127.0.0.1:$token/?service=t" && break; sleep 0.05; done
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$bearer" "$(printf 'bob:his-password' | base64)" >"$DOCKER_CONFIG/config.json"
: >"$work/token.log"
ok "token: push" "$build local p = image:push { to = '127.0.0.1:$bearer/public/x:1' } log.info('sent %d', p.sent)" "sent 3"
command_ok "one token for each scope, however many blobs" test "$(grep -c 'GET /token' "$work/token.log")" = 2
rm "$DOCKER_CONFIG/config.json"
ok "token: anonymous pull" "log.info('digest %s', registry.pull('127.0.0.1:$bearer/public/x:1').digest)" "digest $digest"
fails "token: anonymous push" "$build image:push { to = '127.0.0.1:$bearer/public/x:2' }" "UNAUTHORIZED" "there are no credentials"
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$bearer" "$(printf 'bob:mistaken' | base64)" >"$DOCKER_CONFIG/config.json"
fails "token: a wrong password" "registry.tags '127.0.0.1:$bearer/public/x'" "UNAUTHORIZED: wrong password" "docker/config.json"
rm "$DOCKER_CONFIG/config.json"

# ---- TLS with a CA of its own ----
tls=$(free_port)
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/tls.key" -out "$work/tls.crt" -days 2 -subj /CN=localhost \
  -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' 2>/dev/null
registry tls "$tls" "" ", tls: { certificate: $work/tls.crt, key: $work/tls.key }" https
config "profiles:
  good: { registry: { url: 'https://localhost:$tls', ca: '$work/tls.crt' } }
  bad: { registry: { url: 'https://localhost:$tls' } }"
profile=(--profile good)
ok "TLS: with the CA" "$build log.info('ref %s', image:push():ref())" "ref localhost:$tls/t:1"
profile=(--profile bad)
fails "TLS: without it" "registry.tags 't'" "certificate"
config "profiles: { far: { registry: { url: 'http://registry.example.org' } } }"
profile=(--profile far)
fails "plain http to another machine" "registry.tags 't'" "insecure: true"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
