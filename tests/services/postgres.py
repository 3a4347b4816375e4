"""A private PostgreSQL on loopback and a free port, for as long as a test needs it."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import psycopg2

from tests.jobs.acquisition.object_store import free_ports

USER = "alto"
# Characters that a URL, an INI file and a shell each take for something else.
PASSWORD = "planted-Pg:p@ss/w%rd$1"
STARTING_SECONDS = 60


@dataclass(kw_only=True)
class Postgres:
    """folder: of its data and log."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        settings |= {"max_connections": "200", "shared_buffers": "32MB"}
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [programs() / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
                stdout=log,
                stderr=log,
                user=ordinary_user(),
                cwd=self.folder,
            )
        wait_until_it_answers(self, self._process)

    def stop(self) -> None:
        """Its clients lose their connections at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a client program (`pg_dump`, `createdb` …) as the user of the databases."""
        environment = {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": PASSWORD,
        }
        program, *rest = arguments
        return subprocess.run(
            [str(programs() / program), *rest], env=environment, check=True, capture_output=True, text=True
        )


def programs() -> Path:
    """Folder of the newest PostgreSQL's programs. Raises FileNotFoundError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise FileNotFoundError("PostgreSQL (Debian package `postgresql`) is not installed")
    return found[-1].parent


def ordinary_user() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.getuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if name in {user.pw_name for user in pwd.getpwall()})


@contextmanager
def postgres(databases: tuple[str, ...]) -> Iterator[Postgres]:
    """Start a server with these databases; everything of it is gone afterwards."""
    user = ordinary_user()
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="postgres-") as temporary:
        folder = Path(temporary)
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        data = str(folder / "data")
        initdb = [
            *(programs() / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256"),
            *(f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"),
        ]
        subprocess.run(initdb, check=True, capture_output=True, user=user, cwd=folder)
        server = Postgres(folder=folder, port=port)
        try:
            server.start()
            for database in databases:
                server.program("createdb", database)
            yield server
        finally:
            server.stop()


def wait_until_it_answers(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg2.connect(
                host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, dbname="postgres"
            ).close()
            return
        except psycopg2.OperationalError:
            time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start (exit status {process.poll()})")
