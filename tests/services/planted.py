"""Everything that runs leave behind, and the secrets of their environment, which none of it may hold."""

import json
import subprocess
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from tests.jobs.acquisition.object_store import client
from tests.services import site as services
from tests.services.postgres import PASSWORD, USER, Postgres
from tests.services.site import Site

DATABASES = ("dagster", "mlflow")
Content = tuple[str, bytes]  # with the name of its place


def hidden() -> set[bytes]:
    """The planted secrets as they are, and as URLs, JSON and HTTP headers write them."""
    forms = {
        form.encode()
        for secret in services.SECRETS
        for form in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    }
    return forms | {b64encode(f"{services.PIPELINE}:{services.PIPELINE_PASSWORD}".encode())}


def leaks(contents: Iterable[Content]) -> list[Content]:
    """Place and secret."""
    secrets = hidden()
    return [(place, secret) for place, content in contents for secret in secrets if secret in content]


def left_behind(project: Path, site: Site) -> Iterator[Content]:
    """Of the runs of a project: files, git's history, logs of services, objects in buckets, values in databases.

    Left out are the tests, which define the secrets.
    """
    for path in (*project.rglob("*"), *site.folder.glob("*.log")):
        if path.is_file() and not path.is_relative_to(project / "tests"):
            yield str(path), path.read_bytes()
    history = ["git", "log", "--patch", "--all", "--", ".", ":!tests"]
    yield "git", subprocess.run(history, cwd=project, capture_output=True, check=False).stdout
    for bucket in services.BUCKETS:
        yield from objects(site, bucket)
    for database in DATABASES:
        yield from rows(site.postgres, database)


def objects(site: Site, bucket: str, prefix: str = "") -> Iterator[Content]:
    s3 = client(site.store)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", ()):
            with suppress(s3.exceptions.NoSuchKey):  # removed meanwhile
                content = s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
                yield f"s3://{bucket}/{each['Key']}", content


def rows(server: Postgres, database: str) -> Iterator[Content]:
    """Every table; what is compressed in it (Dagster's snapshots of jobs), too."""
    connection = psycopg2.connect(
        host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, dbname=database
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("select * from {}").format(sql.Identifier(table)))
            for row in cursor.fetchall():
                yield f"database {database} {table}", b" ".join(map(readable, row))
    connection.close()


def readable(value: object) -> bytes:
    content = bytes(value) if isinstance(value, memoryview) else str(value).encode()
    with suppress(zlib.error):
        return zlib.decompress(content)
    return content
