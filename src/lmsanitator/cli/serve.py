"""lmsanitator serve"""

import importlib.util
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from lmsanitator.cli.parameters import AllowedRate, TunedBase

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(
    tuned: Annotated[Path, typer.Argument(help="A PEFT adapter made by `tune`.")],
    *,
    report: Annotated[Path, typer.Option(help="scan.json of the encoder.")],
    base: TunedBase = None,
    watch: Annotated[str, typer.Option(help="The pass to watch: auto, raw, prompted or both.")] = "raw",
    rate: AllowedRate = 0.005,
    clean: Annotated[Path | None, typer.Option(help="Clean texts like those to be served, one a line.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[str, typer.Option(help="The model's name in /v2/models/NAME.")] = "guarded",
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with a key that every request has to bring along.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Largest body.")] = 2**18,
    max_words: Annotated[int, typer.Option(help="Most words of a text.")] = 1000,
    max_texts: Annotated[int, typer.Option(help="Most texts of a request.")] = 64,
    max_batch: Annotated[int, typer.Option(help="Most texts in a pass of the guard.")] = 32,
    max_delay: Annotated[float, typer.Option(help="Milliseconds a text waits for others to share its pass.")] = 5.0,
    max_queue: Annotated[int, typer.Option(help="Most texts that wait; beyond them the answer is 503.")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds to read a request, and again to answer it.")] = 30.0,
    log_text: Annotated[bool, typer.Option(help="Write the texts into the log.")] = False,
) -> None:
    """Serve a guarded classifier: POST /classify, Open Inference Protocol v2, /metrics, a page at /.

    Logs go to stderr as JSON lines. SIGTERM answers what is open and ends with exit code 0. Exit code 4: the extra
    `serve` is not installed, or an option makes no sense; 2: the model or the report cannot be used.
    """
    from lmsanitator.errors import UsageError

    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"expected the extra serve (pip install 'lmsanitator[serve]'): {missing[0]} is not installed")

    from lmsanitator.cli.options import WATCHES, choose, plain_texts, read_lines
    from lmsanitator.serve import ServeConfig, run
    from lmsanitator.serve.server import open_served

    key = None if api_key_env is None else os.environ.get(api_key_env)
    if api_key_env is not None and not key:
        raise UsageError(f"expected an API key in the environment variable {api_key_env}, it is empty or not set")
    config = ServeConfig(
        name=name,
        max_bytes=max_bytes,
        max_words=max_words,
        max_texts=max_texts,
        max_batch=max_batch,
        max_delay=max_delay / 1000,
        max_queue=max_queue,
        timeout=timeout,
        api_key=key,
        log_text=log_text,
    )
    signal.signal(signal.SIGTERM, _stop)  # nothing is served yet: there is nothing to answer
    like = plain_texts(read_lines(clean), "--clean") if clean else None
    served = open_served(tuned, report, choose(watch, WATCHES, "pass"), base=base, rate=rate, clean=like)
    run(served, config, host=host, port=port)


def _stop(number: int, frame: object) -> None:
    raise typer.Exit(0)
