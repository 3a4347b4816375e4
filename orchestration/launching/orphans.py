"""Jobs of ours that run on although nobody watches them any more: their run's process was killed."""

import time
from collections.abc import Iterator
from pathlib import Path

from jobs.runner.job_spec import Resources
from jobs.runner.lineage import look_up, read_yaml
from jobs.runner.worker import parse_config
from orchestration.launching.choice import launcher_named
from orchestration.launching.interface import JobHandle, Launcher
from orchestration.launching.job_files import watched_file

SECONDS_UNWATCHED = 120.0


def launchers_in_use(root: Path) -> list[Launcher]:
    """Raises InputError where the resources or a site's settings are wrong."""
    resources = parse_config(Resources, "resources", look_up(read_yaml(root / "params.yaml"), "resources"))
    names = {resources.launcher, *(needs.launcher for needs in resources.needs.values() if needs.launcher)}
    return [launcher_named(name, root) for name in sorted(names)]


def orphans(launcher: Launcher, root: Path) -> Iterator[JobHandle]:
    """Raises LaunchFailed where the launcher cannot be asked."""
    for handle in launcher.jobs():
        watched = [watched_file(work) for work in work_folders(root, handle)]
        if not any(
            file.exists() and time.time() - file.stat().st_mtime < SECONDS_UNWATCHED for file in watched
        ):
            yield handle


def work_folders(root: Path, handle: JobHandle) -> list[Path]:
    """Folders of the job: its launcher knows it, or the end of its name says it, which is that of the fingerprint."""
    if handle.work is not None:
        return [handle.work]
    fingerprint = handle.name.rpartition("-")[2]
    return [folder for depth in ("*", "*/*") for folder in (root / ".work").glob(f"{depth}/{fingerprint}*")]
