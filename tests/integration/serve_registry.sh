#!/usr/bin/env bash
# skopeo and curl against the registry of `mlhost serve`: $MLHOST is the program. Prints "N passed, N failed" last.
set -uo pipefail
for tool in skopeo curl openssl python3; do
  command -v "$tool" >/dev/null || { echo "SKIPPED serve_registry: no $tool"; echo "0 passed, 0 failed"; exit 0; }
done
work=$(mktemp -d)
server=
passed=0 failed=0
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT

# ok NAME COMMAND...: the command succeeds. is NAME GOT WANTED: equal.
ok() {
  local name=$1
  shift
  if out=$("$@" 2>&1); then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $name: $*"; echo "$out" | tail -5; fi
}
is() {
  if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1: got '$2', wanted '$3'"; fi
}
# status NAME WANTED CURL-ARGS...: the HTTP status; the body is in $work/body, the headers in $work/headers.
status() {
  local name=$1 wanted=$2
  shift 2
  is "$name" "$(curl -s -o "$work/body" -D "$work/headers" -w '%{http_code}' "$@")" "$wanted"
}
header() { tr -d '\r' <"$work/headers" | sed -n "s/^$1: //Ip" | tail -1; }
sha() { echo "sha256:$(sha256sum "$1" | cut -d' ' -f1)"; }
field() { python3 -c "import json,sys; v=json.load(sys.stdin)
for k in sys.argv[1:]: v = v[int(k) if isinstance(v, list) else k]
print(v)" "$@"; }
serve() {
  : >"$work/out"
  "$MLHOST" serve --port 0 --workspace "$work/ws" >"$work/out" 2>"$work/err" &
  server=$!
  for _ in $(seq 100); do
    url=$(sed -n 's/^mlhost: serving //p' "$work/out")
    [ -z "$url" ] || return 0
    kill -0 "$server" 2>/dev/null || break
    read -rt 0.1 <> <(:) || true
  done
  cat "$work/err"
  echo "0 passed, 1 failed"
  exit 1
}
mkdir "$work/ws"
serve
host=${url#http://}

# ---- an image of two layers, as an OCI layout ----
image=$work/image
mkdir -p "$image/blobs/sha256" "$work/root/etc"
put() { # put FILE: into the layout; prints its digest
  local digest
  digest=$(sha "$1")
  cp "$1" "$image/blobs/sha256/${digest#sha256:}"
  echo "$digest"
}
openssl rand -out "$work/root/random" 8388608
tar -C "$work/root" -cf "$work/one.tar" random
echo hello >"$work/root/etc/hello"
tar -C "$work/root" -cf "$work/two.tar" etc
diff1=$(sha "$work/one.tar") diff2=$(sha "$work/two.tar")
gzip -n "$work/one.tar" "$work/two.tar"
layer1=$(put "$work/one.tar.gz") layer2=$(put "$work/two.tar.gz")
printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["/etc/hello"]},"rootfs":{"type":"layers","diff_ids":["%s","%s"]}}' \
  "$diff1" "$diff2" >"$work/config"
config=$(put "$work/config")
descriptor() { printf '{"mediaType":"%s","digest":"%s","size":%d}' "$1" "$2" "$(stat -c %s "$image/blobs/sha256/${2#sha256:}")"; }
oci=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":%s,"layers":[%s,%s]}' "$oci" \
  "$(descriptor $oci.config.v1+json "$config")" "$(descriptor $oci.layer.v1.tar+gzip "$layer1")" \
  "$(descriptor $oci.layer.v1.tar+gzip "$layer2")" >"$work/manifest"
manifest=$(put "$work/manifest")
echo '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json","digest":"%s","size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}' \
  "$oci" "$manifest" "$(stat -c %s "$work/manifest")" >"$image/index.json"

# ---- skopeo: in, look, out, delete ----
plain=(--policy "$work/policy.json")
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"
for tag in v1 v2 v10 latest; do
  ok "copy in $tag" skopeo "${plain[@]}" copy --dest-tls-verify=false "oci:$image:v1" "docker://$host/team/digits:$tag"
done
is "digest by skopeo inspect" "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$host/team/digits:v1")" "$manifest"
is "list-tags" "$(skopeo list-tags --tls-verify=false "docker://$host/team/digits" | field Tags | tr -d "[]', " )" "latestv1v10v2"
ok "copy out" skopeo "${plain[@]}" copy --src-tls-verify=false "docker://$host/team/digits@$manifest" "oci:$work/back:v1"
is "manifest that came back" "$(field manifests 0 digest <"$work/back/index.json")" "$manifest"
for digest in "$manifest" "$config" "$layer1" "$layer2"; do
  ok "blob that came back" cmp "$image/blobs/sha256/${digest#sha256:}" "$work/back/blobs/sha256/${digest#sha256:}"
done
ok "copy to another repository" skopeo "${plain[@]}" copy --src-tls-verify=false --dest-tls-verify=false \
  "docker://$host/team/digits:v1" "docker://$host/other:v1"
ok "as a Docker image" skopeo "${plain[@]}" copy --format v2s2 --dest-tls-verify=false "oci:$image:v1" "docker://$host/docker:v1"
is "type of the Docker image" "$(skopeo inspect --raw --tls-verify=false "docker://$host/docker:v1" | field mediaType)" \
  application/vnd.docker.distribution.manifest.v2+json

# ---- the protocol, by curl ----
base=$url/v2/team/digits
status "ping" 200 "$url/v2/"
status "ping without the slash" 200 "$url/v2"
status "manifest by tag" 200 "$base/manifests/v1"
is "its digest" "$(header Docker-Content-Digest)" "$manifest"
is "its type" "$(header Content-Type)" "$oci.manifest.v1+json"
ok "its bytes" cmp "$work/body" "$work/manifest"
status "HEAD of a manifest" 200 -I "$base/manifests/$manifest"
is "its length" "$(header Content-Length)" "$(stat -c %s "$work/manifest")"
status "HEAD of a blob" 200 -I "$base/blobs/$layer1"
is "the blob's length" "$(header Content-Length)" "$(stat -c %s "$work/one.tar.gz")"
status "range" 206 -H 'Range: bytes=100-199' "$base/blobs/$layer1"
ok "its bytes" cmp "$work/body" <(tail -c +101 "$work/one.tar.gz" | head -c 100)
status "last bytes" 206 -H 'Range: bytes=-7' "$base/blobs/$layer1"
ok "their bytes" cmp "$work/body" <(tail -c 7 "$work/one.tar.gz")
status "open range" 206 -H 'Range: bytes=8388000-' "$base/blobs/$layer1"
ok "its bytes" cmp "$work/body" <(tail -c +8388001 "$work/one.tar.gz")
status "a range that is none" 200 -H 'Range: bytes=100-199&x' "$base/blobs/$layer1"
ok "the whole" cmp "$work/body" "$work/one.tar.gz"
status "range beyond the end" 416 -H 'Range: bytes=99999999-' "$base/blobs/$layer1"

printf 'a blob of some bytes' >"$work/blob"
blob=$(sha "$work/blob")
status "POST with digest" 201 -X POST --data-binary "@$work/blob" -H 'Content-Type: application/octet-stream' \
  "$base/blobs/uploads/?digest=$blob"
is "where it is" "$(header Location)" "/v2/team/digits/blobs/$blob"
status "it is there" 200 "$base/blobs/$blob"
status "mount" 201 -X POST "$url/v2/other/blobs/uploads/?mount=$blob&from=team/digits"
absent=sha256:$(printf '%064d' 0)
status "mount of nothing starts an upload" 202 -X POST "$url/v2/other/blobs/uploads/?mount=$absent&from=team/digits"
printf 'in three chunks' >"$work/chunks"
chunks=$(sha "$work/chunks")
status "start" 202 -X POST "$base/blobs/uploads/"
at=$url$(header Location)
status "first chunk" 202 -X PATCH -H 'Content-Range: 0-4' --data-binary 'in th' "$at"
is "its range" "$(header Range)" "0-4"
status "chunk at the wrong place" 416 -X PATCH -H 'Content-Range: 2-6' --data-binary 'xxxxx' "$at"
status "status of the upload" 204 "$at"
is "range of the upload" "$(header Range)" "0-4"
status "second chunk, without a length" 202 -X PATCH -H 'Transfer-Encoding: chunked' -H 'Content-Type: application/octet-stream' \
  --data-binary 'ree c' "$at"
status "last chunk in the PUT" 201 -X PUT -H 'Content-Range: 10-14' --data-binary 'hunks' "$at?digest=$chunks"
status "the upload is over" 404 "$at"
status "the blob" 200 "$base/blobs/$chunks"
ok "its bytes" cmp "$work/body" "$work/chunks"
status "start" 202 -X POST "$base/blobs/uploads/"
at=$url$(header Location)
status "wrong digest" 400 -X PUT --data-binary 'other bytes' "$at?digest=$absent"
is "its code" "$(field errors 0 code <"$work/body")" DIGEST_INVALID
status "nothing was kept" 404 "$base/blobs/$absent"
is "its code" "$(field errors 0 code <"$work/body")" BLOB_UNKNOWN
status "start" 202 -X POST "$base/blobs/uploads/"
at=$url$(header Location)
status "give up" 204 -X DELETE "$at"
status "given up" 404 -X PATCH --data-binary x "$at"
is "its code" "$(field errors 0 code <"$work/body")" BLOB_UPLOAD_UNKNOWN
status "no digest" 400 -X POST --data-binary x "$base/blobs/uploads/?digest=md5:x"
status "upload elsewhere" 404 -X PATCH --data-binary x "$base/blobs/uploads/..%2f..%2fblobs"

put_manifest() { status "$1" "$2" -X PUT -H "Content-Type: $3" --data-binary "@$4" "$5"; }
put_manifest "manifest by digest" 201 $oci.manifest.v1+json "$work/manifest" "$base/manifests/$manifest"
put_manifest "manifest by a wrong digest" 400 $oci.manifest.v1+json "$work/manifest" "$base/manifests/$absent"
sed "s/$config/$absent/" "$work/manifest" >"$work/bad"
put_manifest "manifest of a blob that is not there" 404 $oci.manifest.v1+json "$work/bad" "$base/manifests/bad"
is "its code" "$(field errors 0 code <"$work/body")" MANIFEST_BLOB_UNKNOWN
status "it was not kept" 404 "$base/manifests/bad"
is "its code" "$(field errors 0 code <"$work/body")" MANIFEST_UNKNOWN
echo 'no json' >"$work/bad"
put_manifest "no JSON" 400 $oci.manifest.v1+json "$work/bad" "$base/manifests/bad"
put_manifest "type that differs" 400 $oci.index.v1+json "$work/manifest" "$base/manifests/bad"
put_manifest "type that nobody knows" 400 text/plain "$work/manifest" "$base/manifests/bad"
put_manifest "bad tag" 400 $oci.manifest.v1+json "$work/manifest" "$base/manifests/.bad"
head -c 5000000 /dev/zero >"$work/huge"
put_manifest "huge manifest" 413 $oci.manifest.v1+json "$work/huge" "$base/manifests/huge"
status "unknown repository" 404 "$url/v2/nobody/tags/list"
is "its code" "$(field errors 0 code <"$work/body")" NAME_UNKNOWN
for name in UPPER a..b -a a/-b 'a//b' %2e%2e/x; do
  status "name $name" 400 --path-as-is "$url/v2/$name/tags/list"
  is "its code" "$(field errors 0 code <"$work/body")" NAME_INVALID
done
status "path upwards" 400 --path-as-is "$url/v2/../../etc/manifests/v1"
status "no such call" 404 "$base/nothing/here"

# ---- lists and pages ----
status "page of tags" 200 "$base/tags/list?n=2"
is "its tags" "$(field tags <"$work/body")" "['latest', 'v1']"
next=$(header Link | sed 's/<\(.*\)>.*/\1/')
status "next page" 200 "$url$next"
is "its tags" "$(field tags <"$work/body")" "['v10', 'v2']"
is "no page after it" "$(header Link)" ""
status "no tags" 200 "$base/tags/list?n=0"
is "none" "$(field tags <"$work/body")" "[]"
status "n is no number" 400 "$base/tags/list?n=x"
status "catalog" 200 "$url/v2/_catalog"
is "its repositories" "$(field repositories <"$work/body")" "['docker', 'other', 'team/digits']"

# ---- referrers ----
printf '{}' >"$work/empty"
empty=$(sha "$work/empty")
status "empty config" 201 -X POST --data-binary "@$work/empty" "$base/blobs/uploads/?digest=$empty"
for kind in sbom signature; do
  printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","artifactType":"example/%s","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"%s","size":2},"layers":[],"subject":{"mediaType":"%s.manifest.v1+json","digest":"%s","size":%d},"annotations":{"k":"%s"}}' \
    "$oci" "$kind" "$empty" "$oci" "$manifest" "$(stat -c %s "$work/manifest")" "$kind" >"$work/$kind"
  put_manifest "referrer $kind" 201 $oci.manifest.v1+json "$work/$kind" "$base/manifests/$(sha "$work/$kind")"
  is "its subject" "$(header OCI-Subject)" "$manifest"
done
status "referrers" 200 "$base/referrers/$manifest"
is "two" "$(python3 -c "import json; print(len(json.load(open('$work/body'))['manifests']))")" 2
status "referrers of a type" 200 "$base/referrers/$manifest?artifactType=example/sbom"
is "the one" "$(field manifests 0 digest <"$work/body")" "$(sha "$work/sbom")"
is "its annotation" "$(field manifests 0 annotations k <"$work/body")" sbom
is "filter said" "$(header OCI-Filters-Applied)" artifactType
status "no referrers" 200 "$base/referrers/$absent"
is "none" "$(field manifests <"$work/body")" "[]"

# ---- the same blob by many at once, and clients that break off ----
openssl rand -out "$work/many" 4194304
many=$(sha "$work/many")
pids=()
for n in $(seq 8); do
  curl -s -o /dev/null -w '%{http_code}\n' -X POST --data-binary "@$work/many" "$url/v2/many/blobs/uploads/?digest=$many" >"$work/many.$n" &
  pids+=($!)
done
wait "${pids[@]}"
is "eight uploads of one blob" "$(cat "$work"/many.? | sort | uniq -c | tr -s ' ')" " 8 201"
status "the blob" 200 "$url/v2/many/blobs/$many"
ok "its bytes" cmp "$work/body" "$work/many"
status "start" 202 -X POST "$url/v2/many/blobs/uploads/"
at=$(header Location)
python3 - "$host" "$at" <<'PY'
import socket, sys
host, port = sys.argv[1].split(":")
s = socket.create_connection((host, int(port)))
s.sendall(("PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n\r\n" % (sys.argv[2], sys.argv[1])).encode() + b"x" * 100)
s.shutdown(socket.SHUT_WR)
s.recv(100)
PY
status "a broken upload goes on" 204 "$url$at"

# ---- deletes, restart ----
status "delete a tag" 202 -X DELETE "$base/manifests/v10"
status "it is gone" 404 "$base/manifests/v10"
status "the image is not" 200 "$base/manifests/v1"
ok "skopeo delete" skopeo delete --tls-verify=false "docker://$host/other:v1"
status "gone" 404 "$url/v2/other/manifests/v1"
status "delete a blob" 202 -X DELETE "$base/blobs/$chunks"
status "gone" 404 "$base/blobs/$chunks"
status "delete nothing" 404 -X DELETE "$base/manifests/$absent"
kill -TERM "$server"
wait "$server"
is "exit status on SIGTERM" $? 0
server=
serve
status "after a restart" 200 "$url/v2/team/digits/manifests/v1"
is "the same image" "$(header Docker-Content-Digest)" "$manifest"
kill -INT "$server"
wait "$server"
is "exit status on SIGINT" $? 0
server=

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
