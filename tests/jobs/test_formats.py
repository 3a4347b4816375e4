"""Readers of publishers' formats: what they yield, and what they make of damage."""

import builtins
import contextlib
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_contracts.errors import InputError
from jobs.formats.alto_jsonl import open_alto_jsonl
from jobs.formats.coco import open_coco_instances
from jobs.formats.pickles import load_plain_pickle
from jobs.formats.raw import RawImage, RawRow
from jobs.formats.refer import open_refer
from jobs.formats.sa1b import open_sa1b
from jobs.formats.selection import Selection
from tests.jobs.raw_data import (
    HEIGHT,
    WIDTH,
    add_member,
    annotation,
    box_mask,
    coco_annotation,
    jpeg,
    reference,
    sa1b_json,
    sentence,
    write_coco,
)


class Calls:
    """Pickles into a call of a function; it would leave a file where it ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return builtins.open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_with_a_call_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"ref_id": Calls(victim)}], protocol=protocol))
    with pytest.raises(InputError, match="refused pickle .*open"):
        load_plain_pickle(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2, 3])[:-4],
        pickle.dumps(Counter("ab")),
        pickle.dumps(np.float64(1)),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02}q\x00(h\x05K\x01u.",
    ],
    ids=["empty", "text", "cut off", "class", "numpy", "os.system", "missing memo"],
)
def test_damaged_and_foreign_pickles_are_one_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(data)
    with pytest.raises(InputError, match="refused pickle"):
        load_plain_pickle(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_no_bytes_make_the_unpickler_raise_anything_else(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        load_plain_pickle(path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=plain, protocol=st.integers(3, 5))
def test_plain_pickles_come_back(tmp_path: Path, value: Any, protocol: int) -> None:
    path = tmp_path / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(path) == value


def python_2(*texts: bytes) -> bytes:
    """A pickled list of byte strings as Python 2 wrote them."""
    return b"\x80\x02](" + b"".join(b"U" + bytes([len(text)]) + text for text in texts) + b"e."


def test_byte_strings_of_python_2_become_text_each_by_its_own_encoding(tmp_path: Path) -> None:
    path = tmp_path / "old.p"
    path.write_bytes(python_2(b"caf\xc3\xa9", b"caf\xe9", b"man\x92s hat", b"\x81"))
    assert load_plain_pickle(path) == ["café", "café", "man’s hat", "\ufffd"]


class Stateful:
    """Pickles into a class and its state."""


DANGEROUS = {
    "call": (b"cbuiltins\nprint\n(S'x'\ntR.", "names builtins.print"),
    "instance": (b"(S'x'\nibuiltins\nprint\n.", "names builtins.print"),
    "stack global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "names os.system"),
    "class with state": (pickle.dumps(Stateful()), "names tests.jobs.test_formats.Stateful"),
    "reduce of nothing": (b"\x80\x02))R.", "instruction REDUCE"),
    "object of nothing": (b"\x80\x02))\x81.", "instruction NEWOBJ"),
    "state of a list": (b"\x80\x02]}b.", "instruction BUILD"),
    "extension": (b"\x80\x02\x82\x01.", "instruction EXT1"),
    "persistent id": (b"Pid\n.", "instruction PERSID"),
    "byte array of 2**40": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "instruction BYTEARRAY8"),
    "unknown instruction": (b"\x80\x02\xff.", "instruction 0xff"),
    "tuple as key": (b"\x80\x02}))s.", "key of type tuple"),
    "tuples as keys": (b"\x80\x02}()K\x01u.", "key of type tuple"),
    "tuple in a set": (b"\x80\x04\x8f()\x90.", "key of type tuple"),
    "text of 2**40": (b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"abc.", "refused"),
    "number of 9,000 digits": (b"L" + b"9" * 9000 + b"L\n.", "refused"),
    "stack below zero": (b"\x80\x0200u.", "refused"),
}


@pytest.mark.parametrize("kind", DANGEROUS)
def test_dangerous_pickles_say_what_was_refused(tmp_path: Path, kind: str) -> None:
    data, reason = DANGEROUS[kind]
    (tmp_path / "refs(unc).p").write_bytes(data)
    with pytest.raises(InputError, match=f"refused pickle .*{reason}" if reason != "refused" else reason):
        load_plain_pickle(tmp_path / "refs(unc).p")


def test_a_hash_bomb_is_refused_at_once(tmp_path: Path) -> None:
    """Hashing a tuple of two of a tuple of two … 60 deep would take 2**60 steps."""
    doubled = b"".join(b"2\x86" for _ in range(60))
    (tmp_path / "refs(unc).p").write_bytes(b"\x80\x02})" + doubled + b"K\x01s.")
    with pytest.raises(InputError, match="key of type tuple"):
        load_plain_pickle(tmp_path / "refs(unc).p")


def test_a_huge_memo_takes_no_memory_and_deep_nesting_no_stack(tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert load_plain_pickle(path) == []
    path.write_bytes(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")
    write_coco(tmp_path, [1], [coco_annotation(1, 1)])
    (image,) = open_refer(tmp_path).images
    assert [problem_of(row) for row in image.rows] == ["fields_complete"]


def as_python_2(references: list[dict[str, Any]]) -> bytes:
    """References pickled as Python 2 did it, every text a byte string."""

    def written(value: Any) -> bytes:
        if isinstance(value, str):
            text = value.encode("latin-1")
            return b"T" + len(text).to_bytes(4, "little") + text
        if isinstance(value, list):
            return b"](" + b"".join(map(written, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(written(key) + written(item) for key, item in value.items()) + b"u"
        return b"J" + value.to_bytes(4, "little", signed=True)

    return b"\x80\x02" + written(references) + b"."


@pytest.mark.parametrize("dialect", ["refs(unc).p", "refs(google).p", "refs(umd).p"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, "python 2"])
def test_every_dialect_of_refer_is_read(tmp_path: Path, dialect: str, protocol: int | str) -> None:
    write_coco(tmp_path, [1], [coco_annotation(1, 1)])
    references = [reference(1, 1, 1), reference(2, 1, 1, split="testB", sentences=[sentence("café cup")])]
    data = as_python_2(references) if isinstance(protocol, str) else pickle.dumps(references, protocol)
    (tmp_path / dialect).write_bytes(data)
    image = only_image(list(open_refer(tmp_path).images))
    assert image.source_file == dialect
    assert [(row.split, row.expressions) for row in image.rows] == [
        ("train", ("left cup",)),
        ("testB", ("café cup",)),
    ]


def test_of_several_dialects_one_must_be_named(tmp_path: Path) -> None:
    write_coco(tmp_path, [1], [coco_annotation(1, 1)])
    for name, split in (("google", "train"), ("umd", "test")):
        (tmp_path / f"refs({name}).p").write_bytes(pickle.dumps([reference(1, 1, 1, split=split)]))
    with pytest.raises(InputError, match=r"\(refs\(google\).p, refs\(umd\).p\), one expected; name one"):
        open_refer(tmp_path)
    image = only_image(list(open_refer(tmp_path, Selection(annotations="refs(umd).p")).images))
    assert image.rows[0].split == "test"


def test_references_of_other_splits_are_counted_and_those_of_none_kept(tmp_path: Path) -> None:
    write_coco(tmp_path, [1, 2], [coco_annotation(1, 1)])
    splits = ["train", "testA", None, "testB"]
    references = [reference(n, 1, 1, split=split) for n, split in enumerate(splits)]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([*references, reference(9, 2, 1)]))
    dataset = open_refer(tmp_path, Selection(splits=("testA",)))
    image = only_image(list(dataset.images))
    assert [(row.row_id, problem_of(row)) for row in image.rows] == [("1", None), ("2", "fields_complete")]
    assert dataset.rows_of_other_splits == 3


def only_image(images: list[RawImage]) -> RawImage:
    (image,) = images
    return image


def problem_of(row: RawRow) -> str | None:
    problems = [row.problem, *(mask.problem for mask in row.masks)]
    return next((problem.rule for problem in problems if problem), None)


def test_loose_pairs_and_archives_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "sa_2.jpg").write_bytes(jpeg())
    (tmp_path / "sa_2.json").write_bytes(sa1b_json(2, [annotation(5)]))
    (tmp_path / "report.json").write_text("{}")
    with tarfile.open(tmp_path / "sa_000007.tar", "w") as tar:
        # The two files of a pair need not follow one another.
        add_member(tar, "sa_70.json", sa1b_json(70, [annotation(1), annotation(2)]))
        add_member(tar, "sa_71.json", sa1b_json(71, []))
        add_member(tar, "sa_70.jpg", jpeg())
        add_member(tar, "sa_71.jpg", jpeg())
    dataset = open_sa1b(tmp_path)
    images = list(dataset.images)
    assert dataset.count == len(images) == 3
    assert [(image.image_id, image.source_file, len(image.rows)) for image in images] == [
        ("2", "sa_2", 1),
        ("70", "sa_000007.tar/sa_70", 2),
        ("71", "sa_000007.tar/sa_71", 0),
    ]
    assert images[1].data == jpeg()
    assert images[0].stated_size == (WIDTH, HEIGHT)
    mask = images[0].rows[0].masks[0]
    assert (mask.mask_id, mask.stated_area, mask.stated_box) == ("5", 60, (3, 4, 9, 5))


def test_a_member_that_comes_twice_is_reported_and_the_first_kept(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "sa_000000.tar", "w") as tar:
        add_member(tar, "sa_1.jpg", jpeg())
        add_member(tar, "sa_1.json", sa1b_json(1, [annotation(1)]))
        add_member(tar, "sa_1.json", sa1b_json(1, [annotation(9)]))
    twice, kept = open_sa1b(tmp_path).images
    assert twice.problem is not None
    assert twice.problem.rule == "archive_member"
    assert kept.rows[0].row_id == "1"


@pytest.mark.parametrize("data", [b"", b"not a tar at all" * 100, b"\x1f\x8b" + b"0" * 2000])
def test_what_is_no_archive_is_reported(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sa_000000.tar").write_bytes(data)
    image = only_image(list(open_sa1b(tmp_path).images))
    assert image.problem is not None
    assert image.problem.rule == "archive_readable"


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"image": {}}',
        b'{"annotations": 3}',
        b"\xff\xfe{\x00",
        b"[" * 100_000,
        b"null",
        '{"image": "café"}'.encode("cp1252"),
    ],
    ids=["list", "no annotations", "number", "utf-16", "deep", "null", "cp1252"],
)
def test_annotations_of_another_form_make_one_rejected_row(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sa_1.jpg").write_bytes(jpeg())
    (tmp_path / "sa_1.json").write_bytes(content)
    image = only_image(list(open_sa1b(tmp_path).images))
    assert image.problem is not None
    assert image.problem.rule in ("annotations_readable", "fields_complete")
    assert len(image.rows) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(sorted(annotation(1))), value=json_values)
def test_no_value_of_a_field_makes_the_reader_fail(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "sa_1.jpg").write_bytes(jpeg())
    (tmp_path / "sa_1.json").write_bytes(sa1b_json(1, [annotation(1) | {field: value}, annotation(2)]))
    image = only_image(list(open_sa1b(tmp_path).images))
    assert len(image.rows) == 2
    assert problem_of(image.rows[1]) is None


def test_a_category_means_all_its_instances(tmp_path: Path) -> None:
    annotations = [coco_annotation(1, 7), coco_annotation(2, 7, 2), coco_annotation(3, 7)]
    write_coco(tmp_path, [7, 8], annotations)
    image = only_image(list(open_coco_instances(tmp_path).images))
    assert [(row.expressions, [m.mask_id for m in row.masks]) for row in image.rows] == [
        (("cup",), ["1", "3"]),
        (("plate",), ["2"]),
    ]


def test_ids_that_repeat_or_lead_nowhere_are_named(tmp_path: Path) -> None:
    broken = [
        coco_annotation(1, 7),
        coco_annotation(1, 7, 2),
        coco_annotation(3, 7, 55),
        coco_annotation(4, 99),
    ]
    write_coco(tmp_path, [7], broken)
    known, unknown = open_coco_instances(tmp_path).images
    assert [problem_of(row) for row in known.rows] == [None, "row_unique", "category_exists"]
    assert unknown.problem is not None
    assert unknown.problem.rule == "image_exists"


@pytest.mark.parametrize(
    "file_name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..\\secret.jpg", ""]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, file_name: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    folder = tmp_path / "set"
    folder.mkdir()
    write_coco(folder, [1], [coco_annotation(1, 1)])
    content = json.loads((folder / "instances.json").read_text())
    content["images"][0]["file_name"] = file_name
    (folder / "instances.json").write_text(json.dumps(content))
    image = only_image(list(open_coco_instances(folder).images))
    assert image.problem is not None
    assert image.problem.rule == "path_safe"
    assert image.data == b""


@pytest.mark.parametrize("damage", ["missing", "text", "list", "utf-16"])
def test_a_broken_index_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    write_coco(tmp_path, [1], [coco_annotation(1, 1)])
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([reference(1, 1, 1)]))
    index = tmp_path / "instances.json"
    if damage == "missing":
        index.unlink()
    else:
        content = {"text": b"hello", "list": b"[]", "utf-16": index.read_text().encode("utf-16")}
        index.write_bytes(content[damage])
    with pytest.raises(InputError, match="instances.json"):
        open_refer(tmp_path)


def test_a_data_set_needs_exactly_one_file_of_references(tmp_path: Path) -> None:
    write_coco(tmp_path, [1], [])
    with pytest.raises(InputError, match="0 files refs"):
        open_refer(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps({"not": "a list"}))
    with pytest.raises(InputError, match="a list of references expected"):
        open_refer(tmp_path)


def conversation(text: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": "The mask appears at …"}]


@pytest.fixture
def alto(tmp_path: Path) -> Path:
    """Lines of every kind for one image, the root folder left out as in a copy."""
    for name in ("images", "masks", "anns"):
        (tmp_path / name).mkdir()
    (tmp_path / "images" / "0.jpg").write_bytes(jpeg())
    Image.fromarray(box_mask(3, 4, 10, 6) * 200).save(tmp_path / "masks" / "0.png")
    (tmp_path / "masks" / "1.png").write_bytes(b"\x89PNG broken")
    right = {"image": "images/0.jpg", "mask": "masks/0.png"}
    lines: list[Any] = [
        right | {"conversations": conversation("Segment <ref>red cup</ref>.")},
        right | {"conversations": conversation("Segment <ref>the cup</ref> by adaptive length.")},
        right | {"mask": "masks/1.png", "conversations": conversation("Segment <ref>cup</ref>.")},
        right | {"mask": "masks/9.png", "conversations": conversation("Segment <ref>cup</ref>.")},
        right | {"mask": "../../etc/passwd", "conversations": conversation("Segment <ref>cup</ref>.")},
        right,
        right | {"conversations": conversation("Segment nothing.")},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n{broken\n\n"
    (tmp_path / "anns" / "a.jsonl").write_text(text)
    index = {"toy": {"root": "example", "annotation": "example/anns/a.jsonl", "repeat_time": 1, "length": 7}}
    (tmp_path / "data_seg.json").write_text(json.dumps(index))
    return tmp_path


def test_expressions_and_masks_of_conversations_are_read(alto: Path) -> None:
    dataset = open_alto_jsonl(alto)
    image, rest = list(dataset.images)
    assert dataset.count == 2
    assert [row.expressions for row in image.rows[:2]] == [("red cup",), ("the cup",)]
    assert [problem_of(row) for row in image.rows] == [
        None,
        None,
        "mask_readable",
        "mask_readable",
        "path_safe",
        "fields_complete",
        None,
    ]
    assert image.rows[6].expressions == ()
    assert [problem_of(row) for row in rest.rows] == ["line_readable"]
    assert rest.rows[0].row_id == "toy-8"


def test_the_root_folder_is_used_where_it_is(alto: Path) -> None:
    root = alto / "example"
    root.mkdir()
    for name in ("images", "masks", "anns"):
        (alto / name).rename(root / name)
    image = next(iter(open_alto_jsonl(alto).images))
    assert image.data == jpeg()
    assert problem_of(image.rows[0]) is None


@pytest.mark.parametrize(
    "entry", [3, {"root": "example"}, {"root": "..", "annotation": "a"}, {"root": "", "annotation": "no"}]
)
def test_an_index_that_leads_nowhere_is_one_clear_error(alto: Path, entry: Any) -> None:
    (alto / "data_seg.json").write_text(json.dumps({"toy": entry}))
    with pytest.raises(InputError, match="data set 'toy'"):
        open_alto_jsonl(alto)
