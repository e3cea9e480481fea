"""A service that really listens: in a thread of the test, or as a process of its own.

    python -m tests.serve.running SECONDS

serves a stub whose every batch takes so long.
"""

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve import ServeConfig, create_app, run
from tests.serve.stub import StubGuard, served


@contextmanager
def running(guard: Any, **options: Any) -> Iterator[int]:
    """The port of a service that runs in a thread."""
    app = create_app(served(guard), ServeConfig(**options))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


class SlowStub(StubGuard):
    """Takes its time for every batch."""

    def __call__(self, texts: Sequence[str]) -> list[GuardedPrediction]:
        time.sleep(float(sys.argv[1]))
        return super().__call__(texts)


if __name__ == "__main__":
    run(served(SlowStub()), ServeConfig(max_batch=4), port=0)
