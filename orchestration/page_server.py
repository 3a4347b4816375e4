"""Serves report pages and Data Docs on loopback, so that they open from Dagster.

`python -m orchestration.page_server PORT`
"""

import hashlib
import io
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from data_contracts.errors import InputError
from jobs.runner.layout import COMPARISON, WHOLE_REPORT, project_root

WIDEST = 2000  # pixels
ONE_PAGE_AT_A_TIME = threading.Lock()  # reading the ledger changes the working directory


class PageHandler(SimpleHTTPRequestHandler):
    """Reports, Data Docs, pages of prepared data and pictures of outputs, nothing else of the project."""

    def translate_path(self, path: str) -> str:
        target = Path(super().translate_path(path)).resolve()
        root = Path(self.directory).resolve()
        parts = target.relative_to(root).parts if target.is_relative_to(root) else ()
        allowed = (
            parts[:1] == ("reports",)
            or (parts[:1] == (".work",) and "data_docs" in parts)
            or (parts[:1] == ("data",) and parts[-1] == "page.html")
            or (parts[:1] in (("data",), ("models",)) and parts[-2:-1] == ("pictures",))
        )
        return str(target) if allowed else str(root / "no such page")

    def do_GET(self) -> None:
        if self.path.split("?")[0] in (f"/{WHOLE_REPORT}", f"/{COMPARISON}"):
            self.send_page_of_now()
        elif self.path.split("?")[0].endswith(".png"):
            self.send_picture()
        else:
            super().do_GET()

    def send_picture(self) -> None:
        """A picture, if its MD5 still begins as the `md5` that is asked for, no wider than `width`."""
        asked = parse_qs(urlsplit(self.path).query)
        path = Path(self.translate_path(self.path))
        picture = path.read_bytes() if path.is_file() else b""
        version = asked.get("md5", [""])[0]
        if not picture or not hashlib.md5(picture).hexdigest().startswith(version):
            self.send_error(
                404, "No such picture", "The result it belongs to has been made again or removed."
            )
            return
        width = asked.get("width", [""])[0]
        if width.isdecimal():
            picture = scaled(picture, min(max(int(width), 1), WIDEST))
        self.send_content("image/png", picture)

    def send_page_of_now(self) -> None:
        """The whole report, or challenger and champion: made again for everyone who asks, one after the other."""
        from orchestration.comparison.page import render_default
        from orchestration.report.page import render_report

        render = render_default if COMPARISON in self.path else render_report
        try:
            with ONE_PAGE_AT_A_TIME:
                page = render(Path(self.directory)).encode()
        except InputError as error:
            self.send_error(404, "No such page", str(error))
            return
        self.send_content("text/html; charset=utf-8", page)

    def send_content(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def list_directory(self, path: object) -> None:
        self.send_error(404, "No listing")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def scaled(picture: bytes, width: int) -> bytes:
    """A PNG as PNG, no wider than `width`."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        small = opened.convert("RGB")
    small.thumbnail((width, 4 * width))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    handler = partial(PageHandler, directory=str(project_root()))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()


if __name__ == "__main__":
    main()
