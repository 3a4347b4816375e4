"""What a site says about its Slurm: `infra/slurm/settings.yaml`. Not parameters: no stage goes stale by them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from jobs.runner.context import JobConfig
from jobs.runner.lineage import read_yaml
from jobs.runner.worker import parse_config

# Each is one word of a command line or of a job script; refused here before any shell or path sees it.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,-]{0,99}$")]
Features = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,&|*\[\]()-]{0,99}$")]
GpuType = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9/][A-Za-z0-9_./:@#+-]{0,299}$")]


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("may hold no line break or control character")
    return value


Value = Annotated[str, AfterValidator(_one_line)]


def _mountable(path: Path) -> Path:
    if not path.is_absolute() or not str(path).isprintable() or set(",:") & set(str(path)):
        raise ValueError("has to be an absolute path without ',' and ':'")
    return path


Folder = Annotated[Path, AfterValidator(_mountable)]


class Queue(JobConfig):
    """Where jobs of a kind go; null: the site's default.

    partition, account, qos: as sbatch takes them. constraint: features a node must have.
    """

    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Features | None = None


class Container(JobConfig):
    """What the job's processes run in.

    runtime: `pyxis` (enroot, by srun's --container-image) or `apptainer`. image: an image's address, or an absolute
    path. mounts: folders seen inside under the same path, besides the work tree.
    """

    runtime: Literal["pyxis", "apptainer"]
    image: Image
    mounts: tuple[Folder, ...] = ()


class SlurmSettings(JobConfig):
    """What Slurm is told of each job beside its needs.

    cpu, gpu: where jobs without and with GPUs go. gpu_type: in `--gres=gpu:<type>:<count>`.
    python: on the nodes, or in the container; null: that of the submitting process, under the same path.
    container: that jobs run in; null: in none.
    warning_seconds: from the signal that lets a job save a checkpoint to its time limit.
    requeues: how often a job that was told to stop is put back into the queue.
    seconds_between_looks: at each job's state.
    pass_environment: variables of the submitting process, where set, that jobs get through Slurm; never written into a
        job file, so the place for secrets.
    variables: that jobs get beside them, written into the job file.
    """

    cpu: Queue = Queue()
    gpu: Queue = Queue()
    gpu_type: GpuType | None = None
    python: Value | None = None
    container: Container | None = None
    warning_seconds: PositiveInt = 180
    requeues: NonNegativeInt = 20
    seconds_between_looks: PositiveFloat = 5.0
    pass_environment: tuple[Variable, ...] = ()
    variables: dict[Variable, Value] = Field(default_factory=dict)


def read_settings(root: Path) -> SlurmSettings:
    """Raises InputError naming every wrong key."""
    path = "infra/slurm/settings.yaml"
    return parse_config(SlurmSettings, "slurm", read_yaml(root / path)["slurm"], path)
