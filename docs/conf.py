"""The documentation as a site: `make docs`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.reference_pages import write_reference  # noqa: E402

project = "ALTo pipeline"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_copyright = False


def setup(app: object) -> None:
    write_reference(DOCS / "reference")
