#!/bin/sh
# MLflow of a deployment: records in PostgreSQL, artifacts in S3, users with passwords. All settings come from the
# environment (docs/operations.md). Clients get artifacts through this server, so they need no key to the bucket.
set -eu
: "${PGHOST:?}" "${PGUSER:?}" "${PGPASSWORD:?}" "${PGDATABASE:?}"
: "${MLFLOW_ARTIFACTS_DESTINATION:?}" "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
: "${MLFLOW_AUTH_ADMIN_USERNAME:?}" "${MLFLOW_AUTH_ADMIN_PASSWORD:?}"
if [ "${#MLFLOW_AUTH_ADMIN_PASSWORD}" -lt 12 ] || [ "${#MLFLOW_FLASK_SERVER_SECRET_KEY}" -lt 12 ]; then
  echo "error: MLFLOW_AUTH_ADMIN_PASSWORD and MLFLOW_FLASK_SERVER_SECRET_KEY need 12 characters or more" >&2
  exit 2
fi
# With an empty address, libpq takes all of it from its variables: no password in a command line or a file.
export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg2://
export MLFLOW_AUTH_CONFIG_PATH="$(cd "$(dirname "$0")" && pwd)/basic_auth.ini"
export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # its jobs are for traces of language models
exec "${PYTHON:-python}" -m mlflow server --app-name basic-auth \
  --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-2}"
