"""Add a user to the MLflow server of a deployment: `python infra/mlflow/add_user.py NAME`.

MLFLOW_TRACKING_URI says where it is; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are an administrator's. The
new password is read from standard input, so that no list of processes and no shell history shows it.
"""

import getpass
import os
import sys

import requests


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    password = getpass.getpass("New password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    answer = requests.post(
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/users/create",
        json={"username": sys.argv[1], "password": password},
        auth=(os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]),
        timeout=60,
    )
    if not answer.ok:
        print(f"error: {answer.status_code} {answer.text[:200]}", file=sys.stderr)
        return 1
    print(f"user {sys.argv[1]} may read everything, and manages what it makes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
