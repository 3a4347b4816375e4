"""The check of GPU health before a Slurm job, with programs of the test's own in place of the machine's."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROLOG = Path(__file__).parents[2] / "infra" / "slurm" / "prolog.sh"
HEALTHY = "0, 0, 4\n1, [N/A], 512"


@dataclass
class Node:
    """A machine whose programs answer what a test says."""

    folder: Path
    state: str = HEALTHY
    remapped: str = "No, No\nNo, No"
    kernel_log: str = ""
    gpus: str = "0,1"
    missing: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def run(self) -> subprocess.CompletedProcess[str]:
        self.program(
            "nvidia-smi", f'case "$*" in *remapped*) {answer(self.remapped)};; *) {answer(self.state)};; esac'
        )
        self.program("scontrol", f'printf "%s\\n" "$@" > {self.folder}/scontrol.txt')
        self.program("dmesg", answer(self.kernel_log))
        environment = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "SLURMD_NODENAME": "gpu-7",
            "SLURM_JOB_GPUS": self.gpus,
            **self.environment,
        }
        return subprocess.run([PROLOG], env=environment, capture_output=True, text=True, timeout=30)

    def program(self, name: str, body: str) -> None:
        if name not in self.missing:
            path = self.folder / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)

    @property
    def drained_for(self) -> str | None:
        """The reason given to Slurm."""
        told = self.folder / "scontrol.txt"
        if not told.exists():
            return None
        update, node, state, reason = told.read_text().splitlines()
        assert (update, node, state) == ("update", "NodeName=gpu-7", "State=DRAIN")
        return reason.removeprefix("Reason=")


def answer(text: str) -> str:
    return f"echo {text!r}; exit 1" if text.startswith("error") else f"printf '%s\\n' $'{escaped(text)}'"


def escaped(text: str) -> str:
    return text.replace("\n", "\\n")


def test_healthy_gpus_let_the_job_start(tmp_path):
    node = Node(tmp_path)
    assert node.run().returncode == 0
    assert node.drained_for is None


def test_job_without_gpus_needs_no_driver(tmp_path):
    assert Node(tmp_path, gpus="", missing=("nvidia-smi",)).run().returncode == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"state": "0, 3, 4\n1, 0, 4"}, "GPU 0: 3 uncorrected memory errors"),
        ({"state": "0, 0, 4\n1, 0, 30211"}, "GPU 1: 30211 MiB are in use"),
        ({"state": "0, 0, 4"}, "nvidia-smi shows 1 of the 2 GPUs"),
        ({"state": "0, 0, [N/A]\n1, 0, 4"}, "GPU 0: used memory is unknown"),
        ({"state": "error: Unable to determine the device handle: GPU is lost"}, "nvidia-smi failed"),
        ({"remapped": "No, No\nYes, No"}, "waits for a reset"),
        ({"remapped": "0, 1\n0, 0"}, "could not remap"),
        ({"kernel_log": "[12.3] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."}, "Xid 79"),
        ({"gpus": "0;reboot"}, "no list of numbers"),
    ],
)
def test_broken_gpu_drains_the_node_with_the_reason(tmp_path, wrong, reason):
    node = Node(tmp_path, **wrong)
    ended = node.run()
    assert ended.returncode == 1
    assert node.drained_for is not None
    assert reason in node.drained_for
    assert reason in ended.stderr


def test_node_without_driver_is_drained(tmp_path):
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    node = Node(tmp_path, missing=("nvidia-smi",))
    assert node.run().returncode == 1
    assert "nvidia-smi is missing" in node.drained_for


@pytest.mark.parametrize(
    "harmless",
    [
        {"remapped": "error: not supported"},
        {"kernel_log": "error: dmesg: read kernel buffer failed: Operation not permitted"},
        {"kernel_log": "[12.3] NVRM: Xid (PCI:0000:3b:00): 31, MMU fault of a program"},
    ],
)
def test_what_says_nothing_about_the_gpu_is_no_reason(tmp_path, harmless):
    assert Node(tmp_path, **harmless).run().returncode == 0


def test_allowed_memory_is_set_by_the_site(tmp_path):
    node = Node(tmp_path, state="0, 0, 2000\n1, 0, 4", environment={"ALTO_PROLOG_MAX_USED_MIB": "4000"})
    assert node.run().returncode == 0
