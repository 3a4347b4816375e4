"""The configuration lines for a production Slurm, read by Slurm itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.jobs.acquisition.object_store import free_ports

FOLDER = Path(__file__).parents[2] / "infra" / "slurm"
TEMPLATES = ("slurm.conf", "gres.conf", "cgroup.conf")


@pytest.fixture
def configuration(tmp_path):
    """The templates as a site would use them, with the names that are the site's own."""
    for name in TEMPLATES:
        shutil.copy(FOLDER / f"{name}.template", tmp_path / name)
    port = free_ports(1)[0]
    site = f"ClusterName=test\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort={port}\nMessageTimeout=2\n"
    path = tmp_path / "slurm.conf"
    path.write_text(site + path.read_text())
    return path


def read_by_slurm(configuration: Path) -> str:
    if not shutil.which("squeue"):
        pytest.skip("Slurm is not installed (Debian package slurm-wlm)")
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    return subprocess.run(["squeue"], env=environment, capture_output=True, text=True, timeout=30).stderr


def test_slurm_reads_the_template(configuration):
    assert "Unable to contact slurm controller" in read_by_slurm(configuration)  # and no word about the file


def test_slurm_would_say_so(configuration):
    configuration.write_text(configuration.read_text().replace("PreemptMode=", "PreemptWay="))
    assert "unrecognized key: PreemptWay" in read_by_slurm(configuration)


def test_prolog_is_the_one_beside_it():
    prolog = re.search(r"^Prolog=(\S+)$", (FOLDER / "slurm.conf.template").read_text(), re.MULTILINE)
    assert prolog is not None
    assert (FOLDER / Path(prolog.group(1)).name).exists()
