"""The embedded profile: the server, its workers and the recorder as children of a supervisor.

`up`, `down` and `status` are what the command line calls. Nothing here imports Prefect.
"""

from flows.server import client_env, configure_client
from flows.services.control import ServiceStatus, StartFailed, Status, UpInfo, down, status, up

__all__ = [
    "ServiceStatus",
    "StartFailed",
    "Status",
    "UpInfo",
    "client_env",
    "configure_client",
    "down",
    "status",
    "up",
]
