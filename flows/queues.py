"""The names of work pools and of their queues; Prefect itself isn't needed to know them."""

CONTROL, CPU, GPU = "control", "cpu", "gpu"
POOLS = (CONTROL, CPU, GPU)

DEFAULT_QUEUE = "default"
WATCHDOG_QUEUE = "watchdog"
HOUSEKEEPING_QUEUE = "housekeeping"
DATA_QUEUE = "data"
LIVE_WORKFLOWS = 4
"""Workflows that run at once; a workflow's run is a process of about 100 MB."""
CONTROL_QUEUES = {
    DEFAULT_QUEUE: (2, LIVE_WORKFLOWS),
    WATCHDOG_QUEUE: (1, 1),
    HOUSEKEEPING_QUEUE: (3, 1),
    DATA_QUEUE: (4, 4),
}
"""Priority and limit of each queue of `control`."""
