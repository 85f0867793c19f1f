#!/usr/bin/env bash
# Every logging command that the host prints, read by Azure Pipelines' own library. Ends with "N passed, N failed".
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
need_node azdo tests/integration/azdo || exit 1
exec node tests/integration/azdo/commands.js "${MLHOST:-$PWD/build/mlhost}" "$MLHOST_VENVS/node-azdo/node_modules"
