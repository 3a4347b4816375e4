"""What was met before in a data set: ids, pictures, masks and expressions that come again."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jobs.formats.raw import VALUE_CHARACTERS
from jobs.preparation.measuring import MeasuredImage, MeasuredMask, MeasuredRow

DIGEST_CHARACTERS = 32  # of a SHA-256; enough to tell pictures apart


class Place(NamedTuple):
    """Where a picture was first met. promised: whether its splits are said to share no image."""

    image_id: str
    split: str
    promised: bool


class Seen:
    """Ids and pictures met so far.

    across_images: whether a row id must be unique in the whole data set, not only in its image.
    """

    def __init__(self, across_images: bool) -> None:
        self.across_images = across_images
        self._images: set[str] = set()
        self._rows: set[str] = set()
        self._places: dict[str, Place] = {}

    def image(self, image_id: str) -> bool:
        """Whether the image came before."""
        again = image_id in self._images
        self._images.add(image_id)
        if not self.across_images:
            self._rows.clear()
        return again

    def row(self, row: MeasuredRow) -> bool:
        """Whether the row came before, or holds a mask twice."""
        again = row.raw.row_id in self._rows
        self._rows.add(row.raw.row_id)
        mask_ids = [mask.raw.mask_id for mask in row.masks]
        return again or len(set(mask_ids)) < len(mask_ids)

    def first_place(self, image: MeasuredImage, place: Place) -> Place:
        """Where the picture of an image that decodes was met first; `place` where it is new."""
        return self._places.setdefault(image.sha256[:DIGEST_CHARACTERS], place)

    def restore(
        self,
        image_ids: Iterable[str],
        row_ids: Iterable[str],
        places: Mapping[str, tuple[str, str, bool]],
    ) -> None:
        """Take over what an earlier run has met."""
        self._images.update(image_ids)
        self._rows.update(row_ids)
        for digest, place in places.items():
            self._places.setdefault(digest, Place(*place))


class Repetitions:
    """Masks and expressions of one image that come again.

    within_row: whether a mask may come again in another row, as the targets of referring records do.
    """

    def __init__(self, within_row: bool) -> None:
        self._within_row = within_row
        self._masks: dict[tuple[str, str], str] = {}
        self._said: dict[tuple[tuple[str, ...], str], str] = {}

    def mask(self, row: MeasuredRow, mask: MeasuredMask) -> str | None:
        """The mask with the same runs before this one."""
        if mask.rle is None:
            return None
        key = (row.raw.row_id if self._within_row else "", mask.rle.counts)
        first = self._masks.setdefault(key, mask.raw.mask_id)
        return None if first == mask.raw.mask_id else f"mask {first} has the same runs"

    def expression(self, row: MeasuredRow) -> str | None:
        """The first expression that was said of the same targets before."""
        if not row.raw.expressions:
            return None
        targets = tuple(sorted(mask.raw.mask_id for mask in row.masks))
        again = None
        for text in map(str.strip, row.raw.expressions):
            if (targets, text) in self._said and again is None:
                again = f"{text[: VALUE_CHARACTERS // 2]!r} as in record {self._said[targets, text]}"
            self._said.setdefault((targets, text), row.raw.row_id)
        return again
