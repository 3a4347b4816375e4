"""One Dagster run of the small training project, as a process: `python -m tests.cluster.dagster_run STAGE`.

A file `cancel` in the project cancels the run.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import dagster as dg

from assets.described import Guide
from assets.stage_asset import StageAsset, build_assets
from jobs.runner.lineage import read_lineage
from orchestration.launching.session import StageLauncher


def materialize(stage: str, instance: dg.DagsterInstance) -> bool:
    guide = Guide(reads="", good="", failing="", page="README.md")
    declared = StageAsset(stage=stage, group="test", description="counts", guide=guide, kinds=frozenset())
    (asset,) = build_assets([declared], read_lineage(Path.cwd()), {})
    resources = {"launcher": StageLauncher(seconds_before_retry=0.5)}
    threading.Thread(target=cancel_when_told, args=(instance,), daemon=True).start()
    return dg.materialize([asset], instance=instance, resources=resources, raise_on_error=False).success


def cancel_when_told(instance: dg.DagsterInstance) -> None:
    """What Dagster does when its button is pressed: it notes that, and interrupts the run's process."""
    while not (cancel := Path("cancel")).exists():
        time.sleep(0.02)
    cancel.unlink()
    instance.report_run_canceling(instance.get_runs(limit=1)[0])
    os.kill(os.getpid(), signal.SIGINT)


def main(stage: str) -> int:
    with dg.DagsterInstance.get() as instance:
        return 0 if materialize(stage, instance) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
