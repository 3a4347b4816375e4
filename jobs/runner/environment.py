"""On what a job ran. Telemetry: kept beside the record, in MLflow and in the report, never hashed."""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ENVIRONMENT_FILE = "environment.json"
PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "numpy",
    "pyarrow",
    "pillow",
    "pycocotools",
    "dvc",
    "mlflow",
)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """devices: kinds of accelerator that the job saw, each once. packages: name -> version, those installed."""

    python: str
    system: str
    processor: str
    cores: int
    devices: tuple[str, ...]
    packages: dict[str, str]

    def tags(self) -> dict[str, str]:
        """For an MLflow run."""
        named = {
            "python": self.python,
            "processor": self.processor,
            "devices": ", ".join(self.devices) or "none",
        }
        return {f"environment.{name}": value for name, value in (named | self.packages).items()}


def current_environment() -> Environment:
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=processor_name(),
        cores=os.cpu_count() or 0,
        devices=device_names(),
        packages={name: found for name in PACKAGES if (found := installed(name))},
    )


def write_environment(folder: Path) -> None:
    (folder / ENVIRONMENT_FILE).write_text(json.dumps(asdict(current_environment()), indent=1) + "\n")


def read_environment(folder: Path) -> Environment | None:
    """None where it was not kept."""
    path = folder / ENVIRONMENT_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    return Environment(**content | {"devices": tuple(content["devices"])})


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def device_names() -> tuple[str, ...]:
    """Of a job that uses torch; importing it here would only slow the others down."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    names = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return tuple(dict.fromkeys(names))


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
