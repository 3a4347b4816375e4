"""docs/benchmarks.md is an example that works: settings the stages accept, reading what each name promises."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import acquire_benchmark, prepare_benchmark
from jobs.formats.dataset import open_dataset
from jobs.preparation.referring import REFERRING
from jobs.preparation.vqa import VQA
from jobs.runner.job_spec import Resources
from tests.jobs.published_data import (
    classes,
    mask_png,
    segment,
    shape,
    write_multi_class,
    write_reason,
    write_refcocom,
)
from tests.jobs.raw_data import box_mask, coco_annotation, reference, write_coco
from tests.jobs.vqa_data import (
    mme_text,
    pope_rows,
    vqav2_rows,
    write_coco_images,
    write_mme,
    write_pope,
    write_vqav2,
)

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "benchmarks.md").read_text(), re.DOTALL)
PARAMETERS, PARTITIONS, SEVERAL_PROCESSES = (yaml.safe_load(block) for block in BLOCKS)
ACQUIRED = acquire_benchmark.Config.model_validate(PARAMETERS["acquire_benchmark"]).benchmarks
PREPARED = prepare_benchmark.Config.model_validate(PARAMETERS["prepare_benchmark"]).benchmarks
# Split, and start of the row ids where no split tells.
PROMISED = {
    "refcocom_part_only": "val_part_only",
    "refcocom_object_part": "val_object_part",
    "ade150": "ade-",
    "pc59": "pascal_ctx-",
    "pas20": "pascal_voc-",
}


def write_published(folder: Path, format_name: str) -> None:
    """Every split and dialect of a format as its publisher's folder holds them."""
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"format": format_name}))
    if format_name in ("refer", "grefcoco"):
        write_coco(folder, [1], [coco_annotation(1, 1)])
    if format_name == "refer":
        splits = ["train", "val", "test", "testA", "testB"]
        refs: list[dict[str, Any]] = [reference(n, 1, 1, split=split) for n, split in enumerate(splits)]
        (folder / "refs(umd).p").write_bytes(pickle.dumps(refs))
    elif format_name == "grefcoco":
        splits = ["train", "val", "testA", "testB"]
        refs = [reference(n, 1, [1], split=split, no_target=False) for n, split in enumerate(splits)]
        (folder / "grefs(unc).json").write_text(json.dumps(refs))
    elif format_name == "refcocom":
        names = ("val_part_only", "val_object_part", "testA_part_only")
        write_refcocom(folder, {name: [segment(1)] for name in names}, {"1": mask_png(box_mask(3, 4, 10, 6))})
    elif format_name == "multi_class":
        for name in ("ade", "pascal_ctx", "pascal_voc"):
            write_multi_class(folder, name, [classes(0)])
    else:
        for split in ("train", "val", "test"):
            write_reason(folder, split, "a", [shape("target", 3, 4, 13, 10)])


def test_every_benchmark_is_acquired_prepared_and_a_partition() -> None:
    assert list(ACQUIRED) == list(PREPARED)
    assert PARTITIONS["benchmark"]["benchmarks"] == ["scenes", *ACQUIRED]


@pytest.mark.parametrize("name", [name for name in PREPARED if ACQUIRED[name].format in VQA])
def test_a_question_set_is_read_whole(tmp_path: Path, name: str) -> None:
    folder, format_name = tmp_path / "set", ACQUIRED[name].format
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"format": format_name}))
    write_coco_images(folder)
    for category in ("random", "popular", "adversarial"):
        write_pope(folder, category, pope_rows())
    write_vqav2(folder, *vqav2_rows())
    write_mme(folder, "count", {"1": mme_text()}, apart=True)
    dataset = open_dataset(folder, VQA[format_name].formats, PREPARED[name].selection)
    rows = [row for image in dataset.images for row in image.rows]
    assert len(rows) == {"pope": 36, "vqav2": 6, "mme": 2}[format_name]
    assert all(row.problem is None for row in rows)


@pytest.mark.parametrize("name", [name for name in PREPARED if ACQUIRED[name].format not in VQA])
def test_a_benchmark_reads_what_its_name_promises(tmp_path: Path, name: str) -> None:
    write_published(tmp_path / "set", ACQUIRED[name].format)
    dataset = open_dataset(tmp_path / "set", REFERRING.formats, PREPARED[name].selection)
    (row,) = (row for image in dataset.images for row in image.rows)
    assert row.problem is None
    promised = PROMISED.get(name, name.split("_")[-1])
    assert row.row_id.startswith(promised) if promised.endswith("-") else row.split == promised


def test_of_two_dialects_the_documented_one_is_read(tmp_path: Path) -> None:
    write_published(tmp_path / "set", "refer")
    (tmp_path / "set" / "refs(google).p").write_bytes(pickle.dumps([reference(1, 1, 1, split="val")] * 2))
    dataset = open_dataset(tmp_path / "set", REFERRING.formats, PREPARED["refcocog_val"].selection)
    assert len([row for image in dataset.images for row in image.rows]) == 1


def test_the_stages_that_measure_run_in_several_processes() -> None:
    resources = Resources.model_validate(SEVERAL_PROCESSES["resources"])
    assert resources.processes == {"benchmark": 8, "tokenizer_benchmark": 8}
