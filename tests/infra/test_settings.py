"""infra/'s settings of a deployment: what Dagster makes of them, and that docs/operations.md names every variable."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dagster._core.instance.config import dagster_instance_config

from orchestration.definitions import defs

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
REQUIRED = ("PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "MLFLOW_ARTIFACTS_DESTINATION")
PASSWORDS = ("MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD")


def test_dagster_takes_the_settings(tmp_path: Path) -> None:
    shutil.copy(ROOT / "infra/dagster/production.yaml", tmp_path / "dagster.yaml")
    settings, _ = dagster_instance_config(str(tmp_path))
    assert settings["telemetry"] == {"enabled": False}
    assert not settings["run_retries"]["retry_on_asset_or_op_failure"]
    pools = {key for asset in defs.resolve_asset_graph().assets_defs for key in asset.op.pools}
    assert pools == {"gpu"}  # which the comments and docs/operations.md speak of


def test_every_variable_is_documented() -> None:
    files = (
        "dagster/production.yaml",
        "mlflow/serve.sh",
        "dagster/serve.sh",
        "mlflow/add_user.py",
        "backup.py",
    )
    text = "\n".join((ROOT / "infra" / name).read_text() for name in files)
    prefixes = "DAGSTER_POSTGRES|DAGSTER_LOGS|DAGSTER_HOME|MLFLOW_AUTH_ADMIN|MLFLOW_FLASK|MLFLOW_TRACKING"
    named = set(re.findall(rf"\b(?:(?:{prefixes})\w*|PG[A-Z]+)\b", text))
    shortened = {
        name.replace("DAGSTER_POSTGRES", "") for name in named if name.startswith("DAGSTER_POSTGRES")
    }
    assert len(shortened) == 5
    for name in {name for name in named if not name.startswith("DAGSTER_POSTGRES")} | shortened:
        assert f"{name}`" in OPERATIONS or name == "PG_PROGRAMS", name


@pytest.mark.parametrize("name", [*REQUIRED, *PASSWORDS])
def test_mlflow_does_not_start_without_a_setting_or_with_a_short_password(name: str) -> None:
    variables = dict.fromkeys((*REQUIRED, "MLFLOW_AUTH_ADMIN_USERNAME", *PASSWORDS), "long enough for it")
    for wrong in ("", *(["short"] if name in PASSWORDS else [])):
        started = subprocess.run(
            [ROOT / "infra/mlflow/serve.sh"],
            env={"PATH": "/usr/bin:/bin", "PYTHON": "false", **variables, name: wrong},
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.returncode == 2
        assert name in started.stderr
