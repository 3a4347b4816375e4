"""Every parameter says what it means, so that `--help` and the reference pages can."""

import importlib
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from jobs.runner.layout import STAGES
from jobs.runner.parameters import Parameter, documented_parameters


@pytest.mark.parametrize("stage", STAGES)
def test_no_parameter_of_a_stage_is_without_a_meaning(stage: str) -> None:
    config_class = importlib.import_module(f"jobs.{stage}").Config
    assert [one.path for one in documented_parameters(config_class) if not one.meaning] == []


class Sizes(BaseModel):
    """Of a network.

    width, height: in pixels.
    depth: layers.
    """

    width: int = 3
    height: int
    depth: Literal["one", "two"] | None = None


class Settings(BaseModel):
    sizes: dict[str, Sizes] = Field(description="by name")
    seed: int


def test_meanings_come_from_fields_and_docstrings_types_and_defaults_from_the_class() -> None:
    assert list(documented_parameters(Settings)) == [
        Parameter(path="sizes", meaning="by name", type="section by name", default=None),
        Parameter(path="sizes.<name>.width", meaning="in pixels", type="int", default="3"),
        Parameter(path="sizes.<name>.height", meaning="in pixels", type="int", default=None),
        Parameter(path="sizes.<name>.depth", meaning="layers", type="one | two | null", default="null"),
        Parameter(path="seed", meaning="", type="int", default=None),
    ]
