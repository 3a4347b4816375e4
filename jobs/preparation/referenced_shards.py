"""SA-1B shards that were left where they are: read one after the other, by what was recorded of them."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from jobs.acquisition.shard_references import References, folder_with
from jobs.formats.raw import RawDataset, RawImage
from jobs.formats.sa1b import open_sa1b
from jobs.formats.selection import WHOLE, Selection
from jobs.preparation.kind import Kind
from jobs.runner.context import StageContext

IMAGES_A_SHARD = 11_186  # as published; for the progress bar only


def with_referenced_shards(kind: Kind, context: StageContext) -> Kind:
    """The kind, reading `sa1b_references` too; shards from a bucket pass through `context.work`."""
    scratch = context.work / "shards"

    def open_references(folder: Path, selection: Selection = WHOLE) -> RawDataset:
        references = References.read(folder)
        parts = tuple(_images(references, name, scratch, context) for name in references.names)
        return RawDataset(len(parts) * IMAGES_A_SHARD, chain.from_iterable(parts), archives=parts)

    return replace(kind, formats={**kind.formats, "sa1b_references": open_references})


def _images(references: References, name: str, scratch: Path, context: StageContext) -> Iterator[RawImage]:
    with folder_with(references, name, scratch, context) as folder:
        yield from open_sa1b(folder).images
