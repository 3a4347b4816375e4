"""The counting project of `training_project` for nodes that share nothing with it but a bucket."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from jobs.runner.layout import StageAddress
from jobs.runner.run import read_report
from tests.cluster.staged_project import commit
from tests.cluster.training_project import REPOSITORY, Project
from tests.jobs.acquisition.object_store import ObjectStore
from tests.services.slurm import Slurm

BUCKET = "storage"
STORE_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL_S3",
    "AWS_EC2_METADATA_DISABLED",
)


class StagedProject(Project):
    """Its jobs run on the cluster, below `scratch`; exchange and DVC remote are in the store, which the environment
    names."""

    def __init__(self, root: Path, cluster: Slurm, store: ObjectStore) -> None:
        super().__init__(root, "slurm", {**os.environ, **cluster.environment})
        self.scratch = root.parent / "scratch"
        self.scratch.mkdir()
        self.exchange = f"s3://{BUCKET}/{root.parent.name}/jobs"
        staging = root / "infra" / "staging" / "settings.yaml"
        staging.parent.mkdir()
        staging.write_text(yaml.safe_dump({"exchange": self.exchange}))
        self.set_site(
            pass_environment=["PATH", *STORE_VARIABLES],
            variables={"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(self.scratch)},
        )
        with (root / ".dvc" / "config").open("a") as config:
            config.write("    remote = storage\n['remote \"storage\"']\n")
            config.write(
                f"    url = s3://{BUCKET}/{root.parent.name}/dvc\n    endpointurl = {store.address}\n"
            )
        (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        self.parameters["resources"]["work_tree"] = "staged"
        self.set()
        commit(root)

    def set_site(self, **values: Any) -> None:
        """Settings of Slurm."""
        path = self.root / "infra" / "slurm" / "settings.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["slurm"] |= values
        path.write_text(yaml.safe_dump(settings))

    def checkpoint(self, stage: str) -> int:
        """Steps in the curves that have come here."""
        found = list((self.root / ".work" / stage).glob("*/state/metrics.jsonl"))
        points = found[0].read_text().splitlines() if found else []
        return json.loads(points[-1])["step"] if points else 0

    def total(self, stage: str) -> int:
        return int(read_report(self.root, "toy", StageAddress(stage))["figures"]["total"])

    def log_on_the_node(self) -> str:
        """Of the job that runs."""
        return "".join(log.read_text() for log in self.scratch.glob("alto-*/work/job.log"))

    def curve(self, stage: str) -> list[int]:
        """Steps that the finished job has logged."""
        lines = (self.root / ".work" / stage / "last_run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]
