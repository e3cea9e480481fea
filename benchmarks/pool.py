"""Many independent pieces of work on processes that share the cores, each result handed over as it comes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import TypeVar

import torch

from lmsanitator.memory import keep_freed_memory

Work = TypeVar("Work")
Result = TypeVar("Result")


def spread(function: Callable[[Work], Result], pieces: Sequence[Work], jobs: int) -> Iterator[Result]:
    """Run `function` on every piece in `jobs` processes; results come in the order in which they are ready.

    Two processes of one thread each do more on two cores than one of two threads, and do not wait for each other.
    What has not begun is dropped when the caller stops, Ctrl-C included.
    """
    jobs = max(1, min(jobs, len(pieces)))
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)  # of the cores that this run was given
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(threads,)) as pool:
        running = [pool.submit(function, piece) for piece in pieces]
        try:
            for future in as_completed(running):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that was killed says nothing: its pieces of work would go on for nobody."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
