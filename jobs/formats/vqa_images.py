"""Images of question sets, found by name wherever they lie in the folder."""

import re
from functools import partial
from pathlib import Path

from jobs.formats.coco import COCO_NUMBERING
from jobs.formats.raw import ProblemError, RawImage, RawRow, printable, read_bytes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.(?:jpg|png)")


class ImageFiles:
    """Paths of all images below a folder, by file name; of several of one name the first path."""

    def __init__(self, folder: Path) -> None:
        self._paths: dict[str, Path] = {}
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
            self._paths.setdefault(path.name, path)

    def first_of(self, names: list[str]) -> str:
        """The first name that there is a file of, else the first name."""
        return next((name for name in names if name in self._paths), names[0])

    def image(self, name: str, rows: tuple[RawRow, ...]) -> RawImage:
        """The image of that file name, by COCO's id where the name is one of COCO's.

        A missing image carries its problem.
        """
        shown, coco = printable(name), _COCO_NAME.fullmatch(name)
        found = RawImage(
            image_id=str(int(coco[1])) if coco else shown,
            image_numbering=COCO_NUMBERING if coco else None,
            source_file=shown,
            rows=rows,
        )
        return found.filled(partial(self._read, name))

    def _read(self, name: str) -> bytes:
        if name not in self._paths:
            raise ProblemError("image_exists", f"no file {printable(name)}")
        return read_bytes(self._paths[name], "image_exists")
