"""Jobs of a toy project that end in the same moment: `python -m tests.cluster.ending_at_once ROOT PARTITION...`."""

import multiprocessing
import sys
from pathlib import Path
from threading import Barrier

from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.run import run_stage
from jobs.runner.stage_lock import StageLock
from tests.jobs.runner.toy_project import toy_job


def run(root: Path, partition: str, all_are_done: Barrier) -> None:
    def job(spec: JobSpec, lock: StageLock) -> None:
        toy_job(spec, lock)
        all_are_done.wait()

    run_stage(root, StageAddress("prepare_sa1b", partition), job)


def main(root: Path, partitions: list[str]) -> int:
    context = multiprocessing.get_context("fork")  # what they import is imported once
    all_are_done = context.Barrier(len(partitions))
    started = [context.Process(target=run, args=(root, partition, all_are_done)) for partition in partitions]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return sum(process.exitcode != 0 for process in started)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
