"""Serves report pages and Data Docs on loopback, so that they open from Dagster.

`python -m orchestration.page_server PORT`
"""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.layout import WHOLE_REPORT, project_root

ONE_REPORT_AT_A_TIME = threading.Lock()  # reading the ledger changes the working directory


class PageHandler(SimpleHTTPRequestHandler):
    """Files below `reports/` and `data_docs` folders and pages of prepared data, nothing else of the project."""

    def translate_path(self, path: str) -> str:
        target = Path(super().translate_path(path)).resolve()
        root = Path(self.directory).resolve()
        parts = target.relative_to(root).parts if target.is_relative_to(root) else ()
        allowed = (
            parts[:1] == ("reports",)
            or (parts[:1] == (".work",) and "data_docs" in parts)
            or (parts[:1] == ("data",) and parts[-1] == "page.html")
        )
        return str(target) if allowed else str(root / "no such page")

    def do_GET(self) -> None:
        if self.path.split("?")[0] == f"/{WHOLE_REPORT}":
            self.send_report()
        else:
            super().do_GET()

    def send_report(self) -> None:
        """The whole report as it is now: made again for everyone who asks, one after the other."""
        from orchestration.report.page import render_report

        try:
            with ONE_REPORT_AT_A_TIME:
                page = render_report(Path(self.directory)).encode()
        except InputError as error:
            self.send_error(404, "No report", str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def list_directory(self, path: object) -> None:
        self.send_error(404, "No listing")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def main() -> None:
    handler = partial(PageHandler, directory=str(project_root()))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()


if __name__ == "__main__":
    main()
