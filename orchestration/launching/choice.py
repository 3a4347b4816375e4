"""Which launcher starts a job: `resources.launcher`, or the stage's own in `resources.needs`."""

from pathlib import Path

from jobs.runner.job_spec import LauncherName
from orchestration.launching.interface import Launcher
from orchestration.launching.local import LocalLauncher
from orchestration.launching.slurm.launcher import SlurmLauncher


def launcher_named(name: LauncherName, root: Path) -> Launcher:
    """Raises InputError where the site's settings for it are wrong."""
    if name == "local":
        return LocalLauncher(root)
    if name == "slurm":
        return SlurmLauncher.of(root)
    from orchestration.launching.kubernetes.launcher import KubernetesLauncher  # its client is slow to import

    return KubernetesLauncher(root)
