"""A private Slurm of two nodes on this machine, on loopback and free ports, for as long as a test needs it.

No systemd and no cgroups: munged, slurmctld and a slurmd for each node run as children of the test, as root.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from tests.jobs.acquisition.object_store import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
NODES = ("n1", "n2")
STARTING_SECONDS = 60
# Debian's folder of daemons is not on every search path.
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,defer_batch
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
MinJobAge=300
KillWait=5
SlurmdTimeout=60
StateSaveLocation={base}/controller
SlurmdSpoolDir={base}/spool.%n
SlurmctldPidFile={base}/controller.pid
SlurmdPidFile={base}/%n.pid
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port} CPUs={cpus} RealMemory=16000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second_port} CPUs={cpus} RealMemory=16000
PartitionName=cpu Nodes=n[1-2] Default=YES MaxTime=INFINITE DefMemPerCPU=500 PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE DefMemPerCPU=500 PriorityTier=10
"""


@dataclass
class Slurm:
    """base: state, configuration and logs. environment: for Slurm's commands, and what runs them."""

    base: Path
    environment: Mapping[str, str]
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, *arguments: str) -> str:
        """Output of one of Slurm's commands."""
        return subprocess.run(
            arguments, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def jobs(self) -> dict[str, str]:
        """Job number -> state, of every job that the controller remembers."""
        return dict(
            line.split() for line in self.command("squeue", "-h", "-t", "all", "-o", "%i %T").splitlines()
        )

    def save_state(self, job: str) -> None:
        """Wait until the controller has written down how the job is now: it does so some seconds after each change."""
        before = time.time()
        self.command("scontrol", "update", f"JobId={job}", "TimeLimit=20")
        wait_for(lambda: (self.base / "controller" / "job_state").stat().st_mtime > before, self)

    def kill_controller(self, before_it_saved: str | None = None) -> None:
        """SIGKILL. before_it_saved: part of a job's comment; it has not written down that there is such a job."""
        controller = self._daemons.pop("slurmctld")
        controller.kill()
        controller.wait()
        for state in (self.base / "controller").glob("job_state*"):
            if before_it_saved is not None and before_it_saved.encode() in state.read_bytes():
                state.unlink()

    def start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D")

    def fail_node(self, name: str) -> None:
        """SIGKILL for its slurmd and all that it has started; the controller is told at once."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()
        self._kill(lambda environment: environment.get("SLURMD_NODENAME") == name)
        self.command("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def start_node(self, name: str) -> None:
        self._start(name, "slurmd", "-D", "-N", name)

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self.base / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [program_path(program), *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, chosen: Callable[[Mapping[str, str]], bool] = lambda environment: True) -> None:
        """What the cluster has started, daemons and jobs, as far as its variables are those to choose."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has just ended
                environment = process.environ()
                if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"] and chosen(environment):
                    process.kill()

    def _stop(self) -> None:
        self._kill()
        for daemon in self._daemons.values():
            daemon.wait()


def require_slurm() -> None:
    """Skip the calling test where a cluster cannot be started."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: Debian packages slurm-wlm and munge")
    if os.getuid() != 0:
        pytest.skip("the test cluster's daemons need root")


def program_path(name: str) -> str:
    return str(shutil.which(name, path=SEARCH_PATH))


@contextmanager
def slurm(cpus: int = 4) -> Iterator[Slurm]:
    """Two idle nodes of so many CPUs and 16 GB, whatever this machine has.

    Jobs of partition `urgent` pre-empt those of `cpu`, the default.
    """
    require_slurm()
    with ExitStack() as stack:
        base = Path(stack.enter_context(TemporaryDirectory(prefix="slurm-")))
        base.chmod(0o755)  # munge wants to be reached
        ports = free_ports(3)
        (base / "slurm.conf").write_text(
            CONFIGURATION.format(
                base=base,
                cpus=cpus,
                host=socket.gethostname().split(".")[0],
                controller_port=ports[0],
                first_port=ports[1],
                second_port=ports[2],
            )
        )
        munge = base / "munge"
        for folder in (munge, base / "controller", *(base / f"spool.{node}" for node in NODES)):
            folder.mkdir(mode=0o755)
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        cluster = Slurm(base, {**os.environ, "SLURM_CONF": str(base / "slurm.conf")})
        stack.callback(cluster._stop)
        files = [f"--{kind}-file={munge / kind}" for kind in ("key", "pid", "seed")]
        cluster._start("munged", "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        wait_for(lambda: (munge / "socket").exists(), cluster)
        cluster.start_controller()
        for node in NODES:
            cluster.start_node(node)
        wait_for(lambda: nodes_are_idle(cluster), cluster)
        yield cluster


def nodes_are_idle(cluster: Slurm) -> bool:
    try:
        return cluster.command("sinfo", "-h", "-p", "cpu", "-o", "%T %D").split() == ["idle", "2"]
    except subprocess.CalledProcessError:  # the controller does not answer yet
        return False


def wait_for(condition: Callable[[], bool], cluster: Slurm) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{log.name}:\n{log.read_text()[-1000:]}" for log in cluster.base.glob("*.log"))
            raise RuntimeError(f"Slurm did not start\n{logs}")
        time.sleep(0.05)
