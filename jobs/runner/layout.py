"""Where each stage's output lies, and how a stage and partition are written as one address."""

import re
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import InputError

DATA_STAGES = (
    "acquire_sa1b",
    "prepare_sa1b",
    "acquire_referring",
    "prepare_referring",
    "acquire_benchmark",
    "prepare_benchmark",
    "mask_tokens",
)
MODEL_STAGES = (
    "base_weights",
    "tokenizer_stage1",
    "tokenizer_stage1_5",
    "altollm_sft",
    "altollm_grpo",
)
REPORT_STAGES = ("tokenizer_benchmark", "grpo_sweep", "benchmark", "benchmark_report")
STAGES = DATA_STAGES + MODEL_STAGES + REPORT_STAGES
ROOTS = dict.fromkeys(DATA_STAGES, "data") | dict.fromkeys(MODEL_STAGES, "models")
ROOTS |= dict.fromkeys(REPORT_STAGES, "reports")

WHOLE_REPORT = "report.html"  # below the address of the pages, and in reports/<profile>: of no stage alone
COMPARISON = "comparison.html"  # below the address of the pages: challenger and champion side by side

PARAMETERS_OF = {"grpo_sweep": "altollm_grpo"}  # stages told what another one is told

PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")
PARTITION_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, order=True)
class StageAddress:
    """One stage, or one partition of it. Written as DVC writes it: `stage` or `stage@partition`."""

    stage: str
    partition: str | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise InputError(f"unknown stage {self.stage!r}: choose one of {', '.join(STAGES)}")
        if self.partition is not None and not PARTITION_KEY.fullmatch(self.partition):
            raise InputError(
                f"partition key {self.partition!r} of {self.stage} may hold only letters, digits, '_', '.' and '-'"
            )

    @classmethod
    def parse(cls, text: str) -> "StageAddress":
        stage, _, partition = text.partition("@")
        return cls(stage, partition or None)

    def __str__(self) -> str:
        return self.stage if self.partition is None else f"{self.stage}@{self.partition}"

    @property
    def folder_name(self) -> Path:
        """Relative folder that belongs to this address alone."""
        return Path(self.stage) if self.partition is None else Path(self.stage, self.partition)


def checked_profile(name: str) -> str:
    """Raises InputError for what is no name of a profile, before it becomes part of a path."""
    if not isinstance(name, str) or not PROFILE_NAME.fullmatch(name):
        raise InputError(f"params.yaml: profile {name!r} may hold only small letters, digits and '_'")
    return name


def checked_item(name: str) -> str:
    """Raises InputError for what is no plain file name, before it becomes part of a path."""
    if not isinstance(name, str) or not PARTITION_KEY.fullmatch(name):
        raise InputError(f"shard name {name!r} may hold only letters, digits, '_', '.' and '-'")
    return name


def parameter_section(stage: str) -> str:
    """Section of `params.yaml` that a stage reads."""
    return PARAMETERS_OF.get(stage, stage)


def stage_folder(profile: str, stage: str) -> Path:
    """Output folder of a stage relative to the project root; above the partitions where it has any."""
    return Path(ROOTS[stage], profile, stage)


def output_folder(profile: str, address: StageAddress) -> Path:
    """Output folder of one address relative to the project root."""
    folder = stage_folder(profile, address.stage)
    return folder if address.partition is None else folder / address.partition


def stage_of_path(path: str) -> str | None:
    """Stage whose output folder a dependency path of `dvc.yaml` names; None for code."""
    parts = Path(path).parts
    if len(parts) >= 3 and ROOTS.get(parts[2]) == parts[0]:
        return parts[2]
    return None


def project_root(start: Path | None = None) -> Path:
    """Nearest folder at or above `start` (default: the working directory) that holds `dvc.yaml`."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise InputError(f"no dvc.yaml in {start} or above it: run this inside the project")
