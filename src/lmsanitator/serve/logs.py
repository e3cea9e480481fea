"""Structured logs: one JSON object a line on stderr. No user text, unless asked for."""

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator
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


@contextlib.contextmanager
def to_stderr() -> Iterator[None]:
    """Send the records of the service, uvicorn and transformers, and Python's warnings, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in ("lmsanitator.serve", "uvicorn", "transformers", "py.warnings")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (logger.handlers, level, logger.propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
