"""What is sent to, and comes back from, a job whose node does not see the work tree of those who submitted it."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from data_contracts.errors import InputError
from jobs.runner.job_spec import JobSpec

JOBS = "jobs"
ORDER = "order.json"
RETURNED = "returned.json"
MAX_RETURNED_BYTES = 16 << 20
COMMIT = re.compile(r"[0-9a-f]{40}")


class StagedOrder(BaseModel):
    """Everything a node needs to know; nothing secret, for it lies in a bucket and is shown in logs.

    job: with paths relative to the project root. commit: of the code and parameters.
    repository: Git URL to clone; None for the bundle `code/<commit>.bundle` of the exchange.
    ledger: `dvc.lock` entries of the stages whose outputs the job reads.
    pipes: context for Dagster Pipes, None outside of Dagster. dagster_run_id: "" outside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: JobSpec
    commit: str = Field(pattern=f"^{COMMIT.pattern}$")
    repository: str | None
    ledger: dict[str, Any]
    pipes: dict[str, Any] | None = None
    dagster_run_id: str = ""


class ReturnedOutput(BaseModel):
    """A folder as `dvc.lock` names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    hash: Literal["md5"]
    md5: str = Field(pattern=r"^[0-9a-f]{32}\.dir$")
    size: NonNegativeInt
    nfiles: PositiveInt


class Returned(BaseModel):
    """The `dvc.lock` entry of a finished job, whose output is in the DVC remote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    fingerprint: str
    commit: str
    input_hashes: dict[str, str]
    outs: Annotated[tuple[ReturnedOutput, ...], Field(min_length=1, max_length=1)]


def read_order(content: bytes | None, where: str) -> StagedOrder:
    """Raises InputError."""
    if content is None:
        raise InputError(f"{where}/{ORDER}: there is no such order; was its result taken already?")
    try:
        return StagedOrder.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"{where}/{ORDER}: {place}: {problem['msg']}; is the same version installed here and there?"
        ) from None


def read_returned(spec: JobSpec, path: str) -> ReturnedOutput:
    """The output in an entry from outside: of this job, and at `path` only. Raises ValueError for anything else."""
    if spec.returned.stat().st_size > MAX_RETURNED_BYTES:
        raise ValueError("it is too long")
    try:
        returned = Returned.model_validate_json(spec.returned.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    expected = {
        "stage": str(spec.address),
        "fingerprint": spec.fingerprint,
        "input_hashes": spec.input_hashes,
    }
    for name, value in expected.items():
        if getattr(returned, name) != value:
            raise ValueError(f"{name} is not that of the job")
    (output,) = returned.outs
    if output.path != path:
        raise ValueError(f"its output is not {path}")
    return output


def relocated(spec: JobSpec, source: Path, target: Path) -> JobSpec:
    """The job with its paths below another folder."""
    return spec.model_copy(
        update={
            "inputs": {name: target / path.relative_to(source) for name, path in spec.inputs.items()},
            "work": target / spec.work.relative_to(source),
        }
    )
