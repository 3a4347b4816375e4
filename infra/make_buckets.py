"""Make the buckets of a deployment where they are missing: `python infra/make_buckets.py NAME ...`.

Address and keys come from where boto3 looks: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
"""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main(names: list[str]) -> int:
    if not names:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        store = boto3.client("s3")
        there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
        for name in names:
            if name not in there:
                store.create_bucket(Bucket=name)
            print(f"{name}: {'was there' if name in there else 'made'}")
    except (BotoCoreError, ClientError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
