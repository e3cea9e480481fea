"""A service from files on disk, run by uvicorn until SIGTERM."""

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from lmsanitator.detect import ScanReport
from lmsanitator.errors import UsageError
from lmsanitator.guard import Guard, Watch
from lmsanitator.guard.monitor import remarks_on
from lmsanitator.serve.app import create_app
from lmsanitator.serve.config import ServeConfig, Served
from lmsanitator.serve.logs import log, to_stderr
from lmsanitator.tune import load_tuned

_BACKLOG = 1024
_GRACE = 5
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def open_served(
    tuned: Path,
    report: Path,
    watch: Watch = "raw",
    *,
    base: str | Path | None = None,
    rate: float = 0.005,
    clean: Sequence[str] | None = None,
) -> Served:
    """A guard on a tuned model.

    Args:
        base: where the encoder is, as for `load_tuned`.
        rate: share of clean texts that may be flagged.
        clean: clean texts like those that will be served, to set the thresholds by.

    Raises:
        LMSanitatorError: one of the two cannot be used, or they do not go together.
    """
    scanned = ScanReport.load(report)
    opened = load_tuned(tuned, base=base)
    guard = Guard(opened.model, opened.tokenizer, scanned, watch=watch, rate=rate, clean=clean)
    named = dict.fromkeys(finding.trigger for finding in scanned.findings if finding.trigger)
    return Served(guard, opened.labels, tuple(named), tuple(remarks_on(scanned, guard.monitor)))


def run(served: Served, config: ServeConfig, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGTERM or SIGINT; requests that are open then are still answered.

    Args:
        port: 0 takes a free one, which the log names.

    Raises:
        UsageError: nothing can listen there.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(served, config),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            # an open request ends by itself within the time to read it and the time to answer it
            timeout_graceful_shutdown=int(2 * config.timeout) + _GRACE,
        )
    )
    with to_stderr(), _listen(host, port) as listening:
        # uvicorn handles the signal and raises it again at the end; a clean stop on request is no failure
        signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
        for remark in served.remarks:
            log.warning(remark)
        if config.api_key is None and host not in _LOOPBACK:
            log.warning("anyone who reaches this address can use it: there is no API key")
        log.info("listening", extra={"facts": {"host": host, "port": listening.getsockname()[1]}})
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; uvicorn by itself would exit with 1, which says "backdoored" here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise UsageError(f"expected a host and port to listen at, {host}:{port} is none: {error}") from error
