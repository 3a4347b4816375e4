"""The commands tagged `fast`, as written, in a project whose `smoke` lineage has run."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from docs.figure_meanings import meaning_of
from jobs.runner.layout import output_folder
from jobs.runner.lineage import read_lineage
from tests.docs.command_blocks import CommandBlock, all_blocks
from tests.docs.run_blocks import make_edits, new_project, run_block
from tests.lineage.project import repro

FAST = [block for block in all_blocks() if block.tags == ("fast",)]
pytestmark = [pytest.mark.slow, pytest.mark.lineage]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what a reader is taken to have at hand: photos, and masks of one of them."""
    project = new_project(tmp_path_factory.mktemp("documented"), "smoke")
    repro(project)
    shard = next((project / "data" / "smoke" / "acquire_sa1b").rglob("*.tar"))
    with tarfile.open(shard) as archive:
        contents = {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    photo = next(name for name in contents if name.endswith(".jpg"))
    (project / "photo.jpg").write_bytes(contents[photo])
    (project / "photos").mkdir()
    (project / "photos" / "a.jpg").write_bytes(contents[photo])
    (project / "masks").mkdir()
    annotations = json.load(io.BytesIO(contents[photo.replace(".jpg", ".json")]))["annotations"]
    for number, annotation in enumerate(annotations[:2]):
        mask = coco.decode(annotation["segmentation"]).astype(np.uint8)
        Image.fromarray(255 * mask).save(project / "masks" / f"{number}.png")
    return project


def test_every_figure_of_a_report_is_in_the_reference(project: Path) -> None:
    unexplained = []
    for address in read_lineage(project).addresses:
        report = json.loads((project / output_folder("smoke", address) / "report.json").read_text())
        unexplained += [
            f"{address}: {figure}"
            for figure in report["figures"]
            if meaning_of(address.stage, figure) is None
        ]
    assert unexplained == []


@pytest.mark.parametrize("block", FAST, ids=str)
def test_a_fast_block_runs_as_written(block: CommandBlock, project: Path) -> None:
    """In the order of the pages: a block may use what an earlier one of its page has made."""
    make_edits(block, project)
    run_block(block, project)
