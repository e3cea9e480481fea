"""Structured logs: one JSON object a line on stderr. No user text, unless asked for."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

log = logging.getLogger("lmsanitator.serve")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, event, and what its `facts` hold.

    Of an exception its class and the places in the code are written, never its message, which may quote a text.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = record.exc_info[0].__name__
            places = traceback.extract_tb(record.exc_info[2])
            entry["at"] = [f"{place.filename.rpartition('/')[2]}:{place.lineno} {place.name}" for place in places[-8:]]
        return json.dumps(entry)


def to_stderr() -> None:
    """Send the service's and uvicorn's records to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("lmsanitator.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
