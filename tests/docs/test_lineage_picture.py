"""The picture of the concepts shows the lineage as it is, to everybody."""

import re

import pytest

from docs.lineage_picture import FILE, INK, KINDS, PAPER, PLACES, direct_inputs, draw
from jobs.runner.layout import STAGES, project_root
from jobs.runner.lineage import read_lineage

LINEAGE = read_lineage(project_root())


def test_the_picture_is_drawn_from_the_lineage() -> None:
    assert FILE.read_text() == draw(LINEAGE), "run: python docs/lineage_picture.py"


def test_every_stage_has_a_place_of_its_own() -> None:
    assert set(PLACES) == set(STAGES)
    assert len(set(PLACES.values())) == len(STAGES)


def test_lines_that_follow_from_others_are_left_out() -> None:
    assert direct_inputs({"a": (), "b": ("a",), "c": ("a", "b")}) == {"a": [], "b": ["a"], "c": ["b"]}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    values = [int(part, 16) / 255 for part in re.findall("[0-9A-Fa-f]{2}", colour)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colour", "least"), [(INK, 4.5), *((colour, 3.0) for colour, _ in KINDS.values())])
def test_text_and_edges_stand_out_from_the_background(colour: str, least: float) -> None:
    """WCAG 2.2, criteria 1.4.3 and 1.4.11."""
    assert (luminance(PAPER) + 0.05) / (luminance(colour) + 0.05) >= least


def test_kinds_differ_without_colour() -> None:
    assert len({dashes for _, dashes in KINDS.values()}) == len(KINDS)
