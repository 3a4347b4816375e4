"""Jobs on Slurm that end in the same moment: `python -m tests.cluster.ending_at_once ROOT PARTITION...`.

Each is one of a toy project, submitted, watched and recorded by a process of its own, as by a Dagster run.
"""

import multiprocessing
import sys
from pathlib import Path

from jobs.runner.job_spec import JobSpec, Needs
from jobs.runner.layout import StageAddress
from jobs.runner.run import run_stage
from jobs.runner.stage_lock import StageLock
from orchestration.launching.interface import JobOrder, job_name
from orchestration.launching.slurm.launcher import SlurmLauncher
from orchestration.launching.slurm.settings import SlurmSettings
from orchestration.launching.watch import run_job

# Leaves its result, and says so (jobs/runner/verdict.py) when all others can do so, too.
JOB = """
import json, os, sys, time
work, fingerprint, text, together, count = sys.argv[1:]
os.mkdir(f"{work}/output")
with open(f"{work}/output/result.txt", "w") as file:
    file.write(text)
open(f"{together}/{fingerprint}", "w").close()
while len(os.listdir(together)) < int(count):
    time.sleep(0.2)
with open(f"{work}/finished.tmp", "w") as file:
    json.dump({"fingerprint": fingerprint, "files": {"result.txt": len(text)}}, file)
os.rename(f"{work}/finished.tmp", f"{work}/finished.json")
"""


def run(root: Path, partition: str, count: int) -> None:
    launcher = SlurmLauncher(root, SlurmSettings(seconds_between_looks=3))

    def launch(spec: JobSpec, lock: StageLock) -> None:
        small = spec.model_copy(update={"needs": Needs(memory_gb=0.25, hours=0.5)})
        arguments = (
            str(spec.work),
            spec.fingerprint,
            f"sum of {partition}",
            str(root / ".work" / "together"),
        )
        worker = ("-c", JOB, *arguments, str(count))
        run_job(launcher, JobOrder(name=job_name(spec), spec=small, worker=worker), None, print)

    run_stage(root, StageAddress("prepare_sa1b", partition), launch)


def main(root: Path, partitions: list[str]) -> int:
    (root / ".work" / "together").mkdir(parents=True)
    context = multiprocessing.get_context("fork")  # what they import is imported once
    started = [context.Process(target=run, args=(root, each, len(partitions))) for each in partitions]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return sum(process.exitcode != 0 for process in started)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
