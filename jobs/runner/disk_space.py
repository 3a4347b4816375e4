"""Whether a job's disks have room for what it writes, before it begins: better than days later, in the middle."""

import os
import shutil
from pathlib import Path

from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import output_folder
from jobs.runner.verdict import JobDied

GB = 1e9
TOO_LITTLE = "too little disk space"  # by which launchers tell it (orchestration/launching/failures.py)


class DiskTooSmall(JobDied):
    """There is not enough room; trying again at once would be the same."""


def require_disk_space(spec: JobSpec) -> None:
    """Raises DiskTooSmall naming the folder. What the job wrote before it was interrupted counts as room.

    The output's folder is that below the working directory, which is the project's root.
    """
    needed = spec.needs.disk_gb
    asked = set()
    for folder in (spec.work, Path.cwd() / output_folder(spec.profile, spec.address)):
        there = _nearest(folder)
        if (device := there.stat().st_dev) in asked:
            continue
        asked.add(device)
        own = _size(spec.work) if device == _nearest(spec.work).stat().st_dev else 0
        room = (shutil.disk_usage(there).free + own) / GB
        if room < needed:
            raise DiskTooSmall(
                f"{TOO_LITTLE}: {folder} has room for {room:.1f} of {needed:g} GB"
                f" (resources.needs.{spec.stage}.disk_gb): see `alto housekeeping`"
            )


def _nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _size(folder: Path) -> int:
    """Bytes on the disk of all files below it."""
    return sum(
        os.lstat(os.path.join(path, name)).st_blocks * 512
        for path, _, names in os.walk(folder)
        for name in names
    )
