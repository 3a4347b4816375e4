"""A job does not begin on a disk without the room that its stage asks for, through either door."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from jobs.runner import disk_space, worker
from jobs.runner.command_line import STATUS
from jobs.runner.disk_space import DiskTooSmall, require_disk_space
from jobs.runner.job_spec import JobSpec, Needs
from jobs.runner.verdict import STATUS_DIED
from orchestration.launching.failures import Cause, classify
from orchestration.launching.interface import JobPhase, JobStatus
from tests.jobs.runner.specs import job_spec

Usage = namedtuple("Usage", ("total", "used", "free"))


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.chdir(tmp_path)
    return job_spec("altollm_sft", tmp_path / ".work" / "altollm_sft" / "0", needs=Needs(disk_gb=2.0))


def give(patch: pytest.MonkeyPatch, free: float) -> None:
    patch.setattr(shutil, "disk_usage", lambda _: Usage(total=100, used=0, free=int(free * 1e9)))


def test_enough_is_enough(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 2.0)
    require_disk_space(spec)


def test_too_little_is_one_line_that_says_what_to_do(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 1.5)
    with pytest.raises(DiskTooSmall) as raised:
        require_disk_space(spec)
    assert str(raised.value) == (
        f"too little disk space: {spec.work} has room for 1.5 of 2 GB (resources.needs.altollm_sft.disk_gb):"
        " see `alto housekeeping`"
    )


def test_checkpoints_of_the_same_job_count_as_room(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that goes on does not write them a second time."""
    give(monkeypatch, 1.9999)
    with pytest.raises(DiskTooSmall):
        require_disk_space(spec)
    (spec.work / "state").mkdir(parents=True)
    (spec.work / "state" / "checkpoint").write_bytes(b"x" * 200_000)
    require_disk_space(spec)


def test_a_full_disk_below_the_output_counts_too(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where work folder and output lie on different file systems."""
    output = Path("models/smoke/altollm_sft").absolute()
    output.mkdir(parents=True)
    real = disk_space._nearest
    monkeypatch.setattr(
        disk_space, "_nearest", lambda folder: Path("/proc") if folder == output else real(folder)
    )
    free = {"/proc": 1e9}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(total=0, used=0, free=free.get(str(path), 9e9))
    )
    with pytest.raises(DiskTooSmall, match=r"models/smoke/altollm_sft has room for 1\.0 of 2 GB"):
        require_disk_space(spec)


def test_nothing_is_done_before_and_the_launcher_knows_why(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, 0.1)
    spec.write()
    monkeypatch.setattr("sys.argv", ["worker", str(spec.path)])
    monkeypatch.setattr(worker, "parse_config", lambda *_: None)
    monkeypatch.setattr(worker.this_process, "listen", lambda: None)
    assert worker.main() == STATUS_DIED == STATUS[DiskTooSmall]
    assert [path.name for path in spec.work.iterdir()] == ["job.json"]
    log = capsys.readouterr().err
    failure = classify(spec, JobStatus(phase=JobPhase.FAILED, exit_code=STATUS_DIED), log, stopped=False)
    assert failure.cause is Cause.DISK_FULL
    assert not failure.cause.retry
    assert "too little disk space" in failure.line
    assert "Free space (`alto housekeeping`)" in failure.line
