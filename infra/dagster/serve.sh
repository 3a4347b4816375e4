#!/bin/sh
# A Dagster process of a deployment: `serve.sh webserver` or `serve.sh daemon`, in the project's folder. The webserver
# has no passwords: it listens on loopback, and a proxy that asks for them stands before it (docs/operations.md).
set -eu
: "${DAGSTER_HOME:?}"
python="${PYTHON:-.venv/bin/python}"
case "${1:?webserver or daemon}" in
webserver)
  exec "$python" -m dagster_webserver -m orchestration.definitions \
    --host "${DAGSTER_HOST:-127.0.0.1}" --port "${DAGSTER_PORT:-3000}"
  ;;
daemon)
  exec "$python" -m dagster._daemon run -m orchestration.definitions
  ;;
*)
  echo "error: webserver or daemon, not $1" >&2
  exit 2
  ;;
esac
