"""The frozen order for one job: everything it may read, fixed before it starts."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationInfo, field_validator

from jobs.runner.context import JobConfig
from jobs.runner.layout import StageAddress

STAGES_WITH_WORKERS = ("tokenizer_stage1", "tokenizer_stage1_5")
STAGES_READ_FROM_COPIES = ("prepare_sa1b",)


class Resources(JobConfig):
    """What a job may use; asking for more makes no stage stale.

    cpus: threads of a job. processes: of each stage that trains in several (torchrun on one machine), by stage.
    workers: processes that read training data, for each process that trains, by stage; 0 for a thread of its own.
    copies: s3://bucket/prefix with a copy of a stage's output, by stage; training reads it in place of the folder.
    """

    cpus: int = Field(gt=0)
    processes: dict[str, int] = Field(default_factory=dict)
    workers: dict[str, NonNegativeInt] = Field(default_factory=dict)
    copies: dict[str, Annotated[str, Field(pattern="^s3://.")]] = Field(default_factory=dict)

    @field_validator("workers", "copies")
    @classmethod
    def _stage_makes_use_of_it(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        usable = STAGES_WITH_WORKERS if info.field_name == "workers" else STAGES_READ_FROM_COPIES
        if idle := value.keys() - set(usable):
            raise ValueError(f"{', '.join(sorted(idle))} makes no use of it; possible: {', '.join(usable)}")
        return value


class JobSpec(BaseModel):
    """Written to `job.json` in the work folder; the launched job reads nothing else of the project's state.

    fingerprint: hash of command, parameters and inputs; names the work folder, so that a killed job's
        checkpoints are found by the next run with the same inputs and by no other.
    threads: CPU threads for arithmetic, shared out over the processes of a machine.
    processes: how many torchrun starts on this machine. workers: that read for each of them.
    copies: as in Resources.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    partition: str | None
    partition_items: tuple[str, ...]
    profile: str
    fingerprint: str
    parameters: dict[str, Any]
    seed: int
    threads: int
    processes: int
    workers: int = 0
    copies: dict[str, str] = Field(default_factory=dict)
    inputs: dict[str, Path]
    input_hashes: dict[str, str]
    work: Path

    @property
    def address(self) -> StageAddress:
        return StageAddress(self.stage, self.partition)

    @property
    def staging(self) -> Path:
        """Where the job writes; renamed into place when it has succeeded."""
        return self.work / "output"

    @property
    def rejected(self) -> Path:
        """Result of a run whose blocking check failed."""
        return self.work / "rejected"

    @property
    def state(self) -> Path:
        """Checkpoints and curves of this job."""
        return self.work / "state"

    @property
    def path(self) -> Path:
        return self.work / "job.json"

    def write(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(self.model_dump_json(indent=1))
        temporary.replace(self.path)

    @classmethod
    def read(cls, path: Path) -> "JobSpec":
        return cls.model_validate_json(path.read_text())
