"""Settings of every test process."""

import os

# Several test processes share the machine: one thread each, or they wait for each other's threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
