"""A web server on loopback that hands out shards, and fails in the ways it is told to."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one request is answered.

    status: an error instead of the file. cut_after: bytes of the body before the connection is closed.
    claimed: Content-Length instead of the true one, "" for none. shift: added to where a range starts.
    stalls: falls silent where it is cut, or before it has said anything, until the client goes away.
    """

    status: int | None = None
    cut_after: int | None = None
    ranges: bool = True
    claimed: str | None = None
    shift: int = 0
    stalls: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Shard:
    content: bytes
    etag: str | None = '"1"'
    modified: str | None = None


class ShardServer(ThreadingHTTPServer):
    """answers: for the next requests in turn; afterwards, and where empty, every request is answered well.

    asked: path and headers of each request, in order. most_at_once: requests being answered together.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.shards: dict[str, Shard] = {}
        self.answers: deque[Answer] = deque()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.released = Event()
        self.lock = Lock()
        self.at_once = self.most_at_once = 0

    def link(self, name: str, signature: str = "") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}" + (f"?sig={signature}" if signature else "")

    @property
    def ranges_asked(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ShardServer

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            self.server.asked.append((self._name(), dict(self.headers)))
            answer = self.server.answers.popleft() if self.server.answers else Answer()
        try:
            self._answer(answer)
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def _answer(self, answer: Answer) -> None:
        self.close_connection = True
        shard = self.server.shards.get(self._name())
        if answer.stalls and answer.cut_after is None:
            self.server.released.wait(5)
            return
        if answer.status is not None or shard is None:
            self.send_response(answer.status or 404)
            self._send_headers({"Content-Length": "0"} | answer.headers)
            return
        # A weak ETag never allows a range.
        validators = [value for value in (shard.etag, shard.modified) if value and not value.startswith("W/")]
        start = self._start(answer, validators)
        body = shard.content[start or 0 :]
        headers = {"Content-Length": str(len(body)) if answer.claimed is None else answer.claimed}
        headers |= {"ETag": shard.etag} if shard.etag else {}
        headers |= {"Last-Modified": shard.modified} if shard.modified else {}
        if start is not None:
            size = len(shard.content)
            headers["Content-Range"] = f"bytes {start + answer.shift}-{size - 1}/{size}"
        self.send_response(200 if start is None else 206)
        self._send_headers(headers | answer.headers)
        self.wfile.write(body[: answer.cut_after])
        self.wfile.flush()
        if answer.stalls:
            self.server.released.wait(5)

    def _name(self) -> str:
        return urlsplit(self.path).path.rpartition("/")[2]

    def _start(self, answer: Answer, validators: list[str]) -> int | None:
        asked = self.headers.get("Range")
        if not asked or not answer.ranges or self.headers.get("If-Range") not in validators:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _send_headers(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def shard_server() -> Iterator[ShardServer]:
    server = ShardServer()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
