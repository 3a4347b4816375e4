"""What a job leaves in its work folder for those who watch it, where both see the same file system."""

from pathlib import Path


def log_file(work: Path) -> Path:
    return work / "job.log"


def messages_file(work: Path) -> Path:
    """Dagster Pipes messages of the job."""
    return work / "pipes_messages.jsonl"


def watched_file(work: Path) -> Path:
    """Touched every few seconds by who watches the job."""
    return work / "watched"


def forget_traces(work: Path) -> None:
    """Before a job is submitted."""
    for path in (log_file(work), messages_file(work)):
        path.unlink(missing_ok=True)


def read_log(work: Path | None, offset: int) -> bytes:
    """The log from this byte on; nothing where it is not there yet, or no longer."""
    if work is None or not log_file(work).exists():
        return b""
    with log_file(work).open("rb") as file:
        file.seek(offset)
        return file.read()
