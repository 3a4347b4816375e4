"""Stand-ins for jobs: milliseconds each, and results that differ with parameters and inputs."""

import json
import shutil

from jobs.runner.context import Check, StageReport
from jobs.runner.job_spec import JobSpec
from jobs.runner.worker import write_report
from tests.benchmarks.scale_project import checks_of

ROWS = 100


def leave_result(spec: JobSpec, passed: bool = True) -> StageReport:
    """What a job leaves in `spec.staging`, with every check of its stage passed, or failed and blocking."""
    shutil.rmtree(spec.staging, ignore_errors=True)
    spec.staging.mkdir(parents=True)
    (spec.staging / "result.json").write_text(json.dumps([spec.fingerprint]))
    checks = tuple(
        Check(name=name, passed=passed, blocking=True, reason="as the test says")
        for name in checks_of(spec.stage)
    )
    report = StageReport(figures={"rows_accepted": ROWS}, checks=checks)
    write_report(report, spec.staging / "report.json")
    return report
