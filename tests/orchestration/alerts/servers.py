"""A web server and a mail server in this process, which keep what they are sent."""

import json
import socketserver
import ssl
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Hook:
    """status: that it answers with."""

    port: int = 0
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def web_server(port: int = 0) -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.paths.append(self.path)
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.status == 200:
                hook.got.append(content)
            self.send_response(hook.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:  # what a redirection would lead to
            self.do_POST()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", port), Handler)) as hook.port:
        yield hook


@dataclass
class Mailbox:
    """messages: as they came. logins: user and password. log: every line that came before encryption."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


@contextmanager
def mail_server(certificate: Path | None = None, password: str = "") -> Iterator[Mailbox]:
    """certificate: file with key and certificate, for STARTTLS; None: it cannot encrypt."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self) -> None:
            encrypted = False
            self.say("220 mail")
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                if not encrypted:
                    box.log.append(line)
                if word == "EHLO":
                    able = (
                        ["STARTTLS"] if certificate and not encrypted else ["AUTH PLAIN"] if encrypted else []
                    )
                    for one in ["mail", *able[:-1]]:
                        self.say(f"250-{one}")
                    self.say(f"250 {(able or ['8BITMIME'])[-1]}")
                elif word == "STARTTLS":
                    self.say("220 go on")
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(str(certificate))
                    self.connection = context.wrap_socket(self.connection, server_side=True)
                    self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                    encrypted = True
                elif word == "AUTH":
                    _, user, given = b64decode(line.split()[2]).decode().split("\0")
                    box.logins.append((user, given))
                    self.say("235 welcome" if given == password else f"535 {given} is wrong")
                elif word == "DATA":
                    self.say("354 go on")
                    lines = iter(self.rfile.readline, b".\r\n")
                    box.messages.append(message_from_bytes(b"".join(lines), policy=policy.default))  # type: ignore[arg-type]
                    self.say("250 kept")
                else:
                    self.say("221 bye" if word == "QUIT" else "250 fine")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with running(Server(("127.0.0.1", 0), Handler)) as box.port:
        yield box


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()


def make_certificate(folder: Path) -> Path:
    """Of localhost, signed by itself; key and certificate in one file."""
    path = folder / "localhost.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", folder / "key", "-out", path], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "key").read_bytes())
    return path
