#!/usr/bin/env bash
# The clients of Azure DevOps, Azure ML and Databricks against a server that holds to those services' contracts.
set -uo pipefail
cd "$(dirname "$0")/../.."
MLHOST=${MLHOST:-$PWD/build/mlhost}
work=$(mktemp -d)
mkfifo "$work/in" "$work/port"
python3 tests/integration/azure_services.py <"$work/in" >"$work/port" &
exec 9>"$work/in"
read -r port <"$work/port"
trap 'exec 9>&-; wait; rm -rf "$work"' EXIT
cp tests/integration/azure_services.lua "$work/"
cat >"$work/mlhost.yaml" <<END
profile: azure
profiles:
  azure:
    azureml:
      url: http://127.0.0.1:$port
      auth: { type: workload_identity, service_connection: conn-1, tenant: t1, client_id: c, scope: "https://management.azure.com/.default",
              authority: "http://127.0.0.1:$port" }
    kubeflow: { url: "http://127.0.0.1:$port", auth: { type: bearer, token: { env: KF_TOKEN } } }
END
(cd "$work" && env -u http_proxy -u all_proxy DATABRICKS_HOST="http://127.0.0.1:$port" DATABRICKS_TOKEN=dapi AZDO_PAT=the-pat SYSTEM_OIDCREQUESTURI="http://127.0.0.1:$port/oidctoken" SYSTEM_ACCESSTOKEN=job-token KF_TOKEN='$(KF_TOKEN)' \
  "$MLHOST" run azure_services.lua --output plain) >"$work/output" 2>&1 9>&-
status=$?
good=$(grep -acE '\] ok [a-z]+$' "$work/output")
bad=$(grep -acE '\] not ok ' "$work/output")
if [ $status != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
[ "$bad" = 0 ] || cat "$work/output"
echo "$good passed, $bad failed"
[ "$bad" = 0 ]
