"""The end of a run whose result must not be used."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.runner.job_spec import JobSpec


class CheckFailed(Exception):
    """A blocking check failed: nothing is recorded, and the result is kept for a look.

    result: folder of the rejected result. report: content of its `report.json`.
    """

    def __init__(self, message: str, result: Path, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.result, self.report = result, report

    @classmethod
    def of(cls, spec: JobSpec) -> "CheckFailed":
        """From the rejected result that the job left."""
        report = json.loads((spec.rejected / "report.json").read_text())
        return cls(
            f"{spec.address}: blocking check failed, nothing recorded ({failed_checks(report)})."
            f" Result kept in {spec.rejected}",
            spec.rejected,
            report,
        )


def failed_checks(report: Mapping[str, Any]) -> str:
    """Name and reason of each blocking check that failed."""
    failed = [check for check in report["checks"] if check["blocking"] and not check["passed"]]
    return "; ".join(f"{check['name']}: {check['reason']}" for check in failed)
