"""Logs of long-lived processes: one line an event, as text or as JSON."""

import json
import logging

from catalog.settings import Settings


class Fields(logging.Formatter):
    """Log lines with their extra fields, as text or as JSON."""

    _PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

    def __init__(self, *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line (and a traceback, where there is one)."""
        fields = {k: v for k, v in record.__dict__.items() if k not in self._PLAIN}
        if self.as_json:
            line = {"at": self.formatTime(record), "level": record.levelname, **fields}
            line["message"] = record.getMessage()
            if record.exc_info:
                line["error"] = self.formatException(record.exc_info)
            return json.dumps(line, default=str)
        return super().format(record) + "".join(f" {k}={v}" for k, v in fields.items())


def log_to_stderr(settings: Settings) -> None:
    """Set up the log of a long-lived process of ours."""
    handler = logging.StreamHandler()
    handler.setFormatter(Fields(as_json=settings.log_json))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
