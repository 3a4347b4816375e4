"""The frozen order for one job: everything it may read, fixed before it starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jobs.runner.context import JobConfig
from jobs.runner.experiments import Experiment
from jobs.runner.layout import STAGES, StageAddress
from jobs.runner.whole_file import write_whole

STAGES_WITH_WORKERS = ("tokenizer_stage1", "tokenizer_stage1_5")
STAGES_READ_FROM_COPIES = ("prepare_sa1b",)
STAGES_IN_SEVERAL_PROCESSES = (
    "tokenizer_stage1",
    "tokenizer_stage1_5",
    "tokenizer_benchmark",
    "altollm_sft",
    "altollm_grpo",
    "grpo_sweep",
    "benchmark",
)

REJECTED = "rejected"  # in a work folder: the result of a run whose blocking check failed

LauncherName = Literal["local", "slurm", "kubernetes"]
WorkTree = Literal["shared", "staged"]


class Needs(JobConfig):
    """What one job asks a machine or cluster for.

    gpus, cpus, memory_gb: of each node. disk_gb: free space, on the file systems of work folder and output, without
        which the job does not begin. nodes: that the job runs on. hours: the time limit.
    launcher: for this stage instead of the common one.
    """

    gpus: NonNegativeInt = 0
    nodes: PositiveInt = 1
    cpus: PositiveInt = 1
    memory_gb: PositiveFloat = 4.0
    disk_gb: NonNegativeFloat = 1.0
    hours: PositiveFloat = 24.0
    launcher: LauncherName | None = None


class Resources(JobConfig):
    """What a job may use and who starts it; a change here makes no stage stale.

    launcher: what starts jobs. work_tree: whether a launched job sees this work tree (a shared file system), or
        works in a clone of its own.
    needs: of each job, by stage; `default` for stages that are not named, and for what a named one does not state.
    processes: on each node, of each stage that trains or evaluates in several (torchrun), by stage.
    workers: processes that read training data, for each process that trains, by stage; 0 for a thread of its own.
    copies: s3://bucket/prefix with a copy of a stage's output, by stage; training reads it in place of the folder.
    """

    launcher: LauncherName = "local"
    work_tree: WorkTree = "shared"
    needs: dict[str, Needs] = Field(default_factory=lambda: {"default": Needs()})
    processes: dict[str, PositiveInt] = Field(default_factory=dict)
    workers: dict[str, NonNegativeInt] = Field(default_factory=dict)
    copies: dict[str, Annotated[str, Field(pattern="^s3://.")]] = Field(default_factory=dict)

    @field_validator("needs", mode="before")
    @classmethod
    def _the_rest_is_default(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(needs, Mapping) for needs in value.values()):
            return value
        default = value.get("default", {})
        return {"default": default} | {stage: {**default, **needs} for stage, needs in value.items()}

    @field_validator("needs", "processes", "workers", "copies")
    @classmethod
    def _stage_makes_use_of_it(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        usable = {
            "needs": ("default", *STAGES),
            "processes": STAGES_IN_SEVERAL_PROCESSES,
            "workers": STAGES_WITH_WORKERS,
            "copies": STAGES_READ_FROM_COPIES,
        }[str(info.field_name)]
        if idle := value.keys() - set(usable):
            raise ValueError(f"{', '.join(sorted(idle))} makes no use of it; possible: {', '.join(usable)}")
        return value

    @model_validator(mode="after")
    def _every_node_and_gpu_has_its_process(self) -> "Resources":
        for stage, needs in self.needs.items():
            processes = self.processes.get(stage, 1)
            if needs.nodes > 1 and stage not in STAGES_IN_SEVERAL_PROCESSES:
                usable = ", ".join(STAGES_IN_SEVERAL_PROCESSES)
                raise ValueError(f"needs.{stage}: more than one node is of use only to {usable}")
            if needs.gpus not in (0, processes):
                raise ValueError(
                    f"needs.{stage}: {needs.gpus} GPUs on a node for {processes} processes; each takes one, so make"
                    f" them equal (processes.{stage})"
                )
        return self

    def needs_of(self, stage: str) -> Needs:
        return self.needs.get(stage, self.needs["default"])

    def launcher_of(self, stage: str) -> LauncherName:
        return self.needs_of(stage).launcher or self.launcher


class JobSpec(BaseModel):
    """Written to `job.json` in the work folder; the launched job reads nothing else of the project's state.

    fingerprint: hash of command, parameters and inputs; names the work folder, so that a killed job's
        checkpoints are found by the next run with the same inputs and by no other.
    launcher, work_tree, copies: as in Resources.
    processes: how many torchrun starts on each node. workers: that read for each of them.
    input_versions: address of each upstream output -> data version, finer than the hash of a folder of partitions.
    experiment: that the job is run for; None for the pipeline itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    partition: str | None
    partition_items: tuple[str, ...]
    profile: str
    fingerprint: str
    parameters: dict[str, Any]
    seed: int
    launcher: LauncherName = "local"
    work_tree: WorkTree = "shared"
    needs: Needs = Field(default_factory=Needs)
    processes: int = 1
    workers: int = 0
    copies: dict[str, str] = Field(default_factory=dict)
    inputs: dict[str, Path]
    input_hashes: dict[str, str]
    input_versions: dict[str, str] = Field(default_factory=dict)
    experiment: Experiment | None = None
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
        return self.work / REJECTED

    @property
    def state(self) -> Path:
        """Checkpoints and curves of this job."""
        return self.work / "state"

    @property
    def returned(self) -> Path:
        """Entry that a job without a shared work tree gave back; its output is in the DVC remote."""
        return self.work / "returned.json"

    @property
    def path(self) -> Path:
        return self.work / "job.json"

    def write(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, path: Path) -> "JobSpec":
        return cls.model_validate_json(path.read_text())
