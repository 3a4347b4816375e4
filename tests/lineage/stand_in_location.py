"""The project's code location with stand-ins for the jobs; what retrains by itself is switched on, and looks often.

A daemon loads it: `dagster-daemon run -m tests.lineage.stand_in_location`, in the project's root.
"""

from collections.abc import Callable

import dagster as dg

from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import project_root
from jobs.runner.stage_lock import StageLock
from orchestration import definitions
from orchestration.automation import retraining
from tests.lineage.stand_ins import leave_result


class Launcher:
    def launch_for(self, context: dg.AssetExecutionContext) -> Callable[[JobSpec, StageLock], None]:
        def launch(spec: JobSpec, lock: StageLock) -> None:
            leave_result(spec)

        return launch


retraining.SECONDS_BETWEEN_LOOKS = 1
definitions.StageLauncher = Launcher
defs = definitions.build_definitions(project_root())
for name in ("new_shards", "enough_new_data", "evaluate_after_retraining"):
    defs.resolve_sensor_def(name)._default_status = dg.DefaultSensorStatus.RUNNING
defs.resolve_schedule_def("weekly_retraining")._default_status = dg.DefaultScheduleStatus.RUNNING
