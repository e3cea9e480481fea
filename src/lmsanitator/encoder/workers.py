"""Batches side by side: cores gain little by sharing the matrices of a small encoder, so each takes its own batch."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, local
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 8
"""Workers, the most: each holds the activations of a batch."""
_thread = local()


def side_by_side(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    device: torch.device,
    done: Callable[[float], None] | None = None,
) -> list[Result]:
    """`work` done on each item, in their order, on as many cores as torch may use in the calling thread. Fewer items
    than workers are done in turn, each by all cores; so is what a worker asks for.

    Args:
        work: what threads may do at the same time. Gradient mode and autocast are a thread's own: it sets them itself.
        device: that the work is done on; on any but the CPU it is done in turn.
        done: told the share of the items that are done, in the calling thread.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST)
    alone = workers < 2 or len(items) < workers or device.type != "cpu" or hasattr(_thread, "works")
    results: list[Result] = []
    for result in map(work, items) if alone else _pool(os.getpid(), workers, threads).map(work, items):
        results.append(result)
        if done is not None:
            done(len(results) / len(items))
    return results


@cache
def _pool(process: int, workers: int, threads: int) -> ThreadPoolExecutor:
    """Threads that share the cores out among themselves. They stay, since what kernels keep for a thread goes with it;
    a process that was forked off starts its own.

    How many threads torch uses is a thread's own setting, but for the one that new threads begin with, which they take
    over when they first ask for it. So each asks before it sets its own, and the other is set back.
    """
    started = Barrier(workers + 1)

    def begin() -> None:
        _thread.works = True
        torch.get_num_threads()
        torch.set_num_threads(threads // workers)
        started.wait()

    pool = ThreadPoolExecutor(workers, "batches", initializer=begin)
    for _ in range(workers):  # one that has not begun is not idle, so each of these starts another
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)
    return pool
