"""What Slurm is given for a job: arguments of sbatch, and the script that each start of the job runs.

Options are arguments of their own, and every value in the script is quoted, so no shell reads any of them as code.
"""

import os
import shlex
import zlib
from pathlib import Path

from jobs.runner.job_spec import JobSpec
from jobs.runner.stopping import STATUS_STOPPED
from orchestration.launching.interface import JobOrder
from orchestration.launching.job_files import log_file
from orchestration.launching.slurm.settings import Container, SlurmSettings

FIRST_PORT, PORTS = 20000, 12000  # below those that the kernel hands out


def sbatch_arguments(order: JobOrder, settings: SlurmSettings, root: Path, script: Path) -> list[str]:
    needs = order.spec.needs
    queue = settings.gpu if needs.gpus else settings.cpu
    gpus = ":".join(filter(None, ("gpu", settings.gpu_type, str(needs.gpus))))
    here = order.spec.work_tree == "shared"
    minutes = max(1, round(needs.hours * 60))
    # A job must have time to work before it is told to stop.
    warning = min(settings.warning_seconds, minutes * 30)
    options = {
        "job-name": order.name,
        "comment": str(order.spec.work),
        "chdir": str(_folder(order.spec, root)),
        "output": _without_patterns(log_file(order.spec.work)) if here else "/dev/null",
        "open-mode": "append",
        "nodes": str(needs.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(needs.cpus),
        "mem": f"{round(needs.memory_gb * 1024)}M",
        "time": str(minutes),
        "signal": f"USR1@{warning}",
        # Never beside another job of this name: two would write into one work folder.
        "dependency": "singleton",
        "export": ",".join([name for name in settings.pass_environment if name in os.environ]) or "NONE",
        "gres": gpus if needs.gpus else None,
        "partition": queue.partition,
        "account": queue.account,
        "qos": queue.qos,
        "constraint": queue.constraint,
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return ["sbatch", "--parsable", "--requeue", *given, str(script)]


def job_script(order: JobOrder, settings: SlurmSettings, root: Path) -> str:
    """The script waits for all processes and ends with their status. Told to stop, the job goes back into the queue."""
    variables = {**settings.variables, **order.environment}
    srun = shlex.join(["srun", *srun_options(order.spec, settings, root), *command(order, settings, root)])
    port = FIRST_PORT + zlib.crc32(str(order.spec.work).encode()) % PORTS
    return f"""#!/bin/bash
# Written by the Slurm launcher for {order.name}.
{"".join(f"export {name}={shlex.quote(value)}{chr(10)}" for name, value in sorted(variables.items()))}
# A step starts only where the controller answers: wait for it, five minutes at most.
for attempt in {{1..60}}; do scontrol show job "$SLURM_JOB_ID" > /dev/null && break || sleep 5; done
# All nodes meet at the first one. Each start takes another port, in case the last one's is not free yet.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol --oneliner show node "$first" | grep -o 'NodeAddr=[^ ]*')
export PET_MASTER_ADDR=${{address#NodeAddr=}}
export PET_MASTER_PORT=$(({port} + ${{SLURM_RESTART_COUNT:-0}} % 100))

status=0
{srun} || status=$?
stopped={shlex.quote(str(order.spec.work / "stopped.txt"))}
if [ "$status" -eq {STATUS_STOPPED} ] || {{ [ "$status" -ne 0 ] && [ -e "$stopped" ]; }}; then
  # A cancelled job stops, too, and is to stay so.
  scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING &&
    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {settings.requeues} ] && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def srun_options(spec: JobSpec, settings: SlurmSettings, root: Path) -> list[str]:
    # What sbatch was told to export, srun would take for itself, and leave out what the script exports.
    options = ["--export=ALL", "--kill-on-bad-exit=1", f"--cpus-per-task={spec.needs.cpus}"]
    container = settings.container
    if container is not None and container.runtime == "pyxis":
        mounts = ",".join(f"{folder}:{folder}" for folder in _mounts(spec, container, root))
        options += [
            f"--container-image={container.image}",
            f"--container-mounts={mounts}",
            f"--container-workdir={_folder(spec, root)}",
            "--no-container-mount-home",
        ]
    return options


def command(order: JobOrder, settings: SlurmSettings, root: Path) -> list[str]:
    """What runs on each node: the worker itself, or torchrun around several."""
    spec, container = order.spec, settings.container
    python = settings.python or order.python
    inside: list[str] = []
    if container is not None and container.runtime == "apptainer":
        binds = [f"--bind={folder}:{folder}" for folder in _mounts(spec, container, root)]
        gpus = ["--nv"] if spec.needs.gpus else []
        inside = ["apptainer", "exec", *gpus, *binds, f"--pwd={_folder(spec, root)}", container.image]
    if spec.processes == spec.needs.nodes == 1:
        return [*inside, python, *order.worker]
    torchrun = [
        *("-m", "jobs.runner.torchrun", "--nnodes", str(spec.needs.nodes)),
        *("--nproc-per-node", str(spec.processes)),
    ]
    # The rank of a node is known on the node alone.
    ranked = ["bash", "-c", 'PET_NODE_RANK=$SLURM_NODEID exec "$@"', "job"]
    return [*ranked, *inside, python, *torchrun, *order.worker]


def _folder(spec: JobSpec, root: Path) -> Path:
    """Where a job begins: in the work tree, where nodes see it."""
    return root if spec.work_tree == "shared" else Path("/")


def _mounts(spec: JobSpec, container: Container, root: Path) -> list[Path]:
    return [root, *container.mounts] if spec.work_tree == "shared" else [*container.mounts]


def _without_patterns(path: Path) -> str:
    """Slurm replaces %j and the like in the name of a log."""
    return str(path).replace("%", "%%")
