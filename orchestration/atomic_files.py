"""Files that are there whole, old or new."""

import os
from pathlib import Path


def write_atomically(path: Path, content: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(content)
    os.replace(temporary, path)
