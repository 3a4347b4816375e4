#!/bin/sh
# A process of a deployment: `serve.sh webserver`, `serve.sh daemon` or `serve.sh pages` (reports and pictures), in the
# project's folder. Webserver and pages have no passwords: they listen on loopback, and a proxy that asks for them stands
# before them (docs/operations.md).
set -eu
: "${DAGSTER_HOME:?}"
python="${PYTHON:-.venv/bin/python}"
case "${1:?webserver, daemon or pages}" in
webserver)
  exec "$python" -m dagster_webserver -m orchestration.definitions \
    --host "${DAGSTER_HOST:-127.0.0.1}" --port "${DAGSTER_PORT:-3000}"
  ;;
daemon)
  exec "$python" -m dagster._daemon run -m orchestration.definitions
  ;;
pages)
  exec "$python" -m orchestration.page_server "${PAGES_PORT:-3001}"
  ;;
*)
  echo "error: webserver, daemon or pages, not $1" >&2
  exit 2
  ;;
esac
