"""A worker of a Docker pool: Prefect's own, and a thread that removes ended containers.

`python -m flows.services.dockerworker` takes the words that `python -m prefect` takes. Docker
could remove a container itself as it ends, but then the worker can't read its exit code, and a
pilot that was killed would be shown as running for ever.
"""

import logging
import threading
import time

from flows.containers import remove_ended

logger = logging.getLogger(__name__)

SWEEP_S = 30.0
KEPT_S = 60.0
"""Time that the worker has to read how a container ended."""


def main() -> None:
    """Work until told to stop."""
    threading.Thread(target=_sweep, name="sweep", daemon=True).start()
    from prefect.cli import app

    app()


def _sweep() -> None:
    while True:
        try:
            remove_ended(KEPT_S)
        except Exception:
            logger.exception("ended containers were not removed")
        time.sleep(SWEEP_S)


if __name__ == "__main__":
    main()
