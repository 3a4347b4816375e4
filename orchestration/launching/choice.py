"""Which launcher starts a job: `resources.launcher`, or the stage's own in `resources.needs`."""

from pathlib import Path

from jobs.runner.job_spec import JobSpec, LauncherName
from orchestration.launching.interface import Launcher
from orchestration.launching.local import LocalLauncher
from orchestration.launching.slurm.launcher import SlurmLauncher
from orchestration.launching.staged import StagedLauncher


def launcher_for(spec: JobSpec, root: Path) -> Launcher:
    """Of one job. Raises InputError where the site's settings for it are wrong."""
    launcher = launcher_named(spec.launcher, root)
    return launcher if spec.work_tree == "shared" else StagedLauncher(root, spec, launcher)


def launcher_named(name: LauncherName, root: Path) -> Launcher:
    """Raises InputError where the site's settings for it are wrong."""
    if name == "local":
        return LocalLauncher(root)
    if name == "slurm":
        return SlurmLauncher.of(root)
    from orchestration.launching.kubernetes.launcher import KubernetesLauncher  # its client is slow to import

    return KubernetesLauncher(root)
