"""Batches that pass the encoder side by side."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch._C import _get_flash_sdp_enabled as flash_sdp_enabled

from lmsanitator.encoder import FrozenEncoder, side_by_side
from lmsanitator.encoder.attention import unfused

CPU = torch.device("cpu")
SECONDS = 30
"""After which a thread that waits for another one gives up."""


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def meeting() -> Callable[[int], int]:
    """Work that is not done before another thread is at it too."""
    both = threading.Barrier(2)

    def meet(item: int) -> int:
        both.wait(SECONDS)
        return item * item

    return meet


@pytest.mark.usefixtures("two_threads")
def test_two_items_are_worked_on_at_once_and_come_back_in_order() -> None:
    assert side_by_side(meeting(), range(6), CPU) == [0, 1, 4, 9, 16, 25]


@pytest.mark.usefixtures("two_threads")
def test_workers_share_the_cores_and_the_caller_keeps_its_own() -> None:
    meet = meeting()
    threads = side_by_side(lambda item: (meet(item), torch.get_num_threads())[1], range(4), CPU)
    assert threads == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_a_worker_asks_for_is_done_in_turn_since_it_would_wait_for_itself() -> None:
    here = side_by_side(
        lambda _: side_by_side(lambda _: threading.get_ident(), range(4), CPU) == [threading.get_ident()] * 4,
        range(4),
        CPU,
    )
    assert here == [True] * 4


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("items", "device"), [(1, CPU), (4, torch.device("cuda")), (0, CPU)])
def test_a_single_item_and_another_device_are_the_callers_own(items: int, device: torch.device) -> None:
    assert side_by_side(lambda _: threading.get_ident(), range(items), device) == [threading.get_ident()] * items


@pytest.mark.usefixtures("two_threads")
def test_an_error_of_a_worker_is_raised_and_the_next_work_is_done() -> None:
    def fails(item: int) -> int:
        if item == 1:
            raise RuntimeError("the second")
        return item

    with pytest.raises(RuntimeError, match="the second"):
        side_by_side(fails, range(4), CPU)
    assert side_by_side(meeting(), range(2), CPU) == [0, 1]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("items", [1, 4])
def test_progress_is_told_where_the_work_was_asked_for(items: int) -> None:
    told: list[tuple[float, int]] = []
    side_by_side(lambda item: item, range(items), CPU, lambda share: told.append((share, threading.get_ident())))
    assert told == [((place + 1) / items, threading.get_ident()) for place in range(items)]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_workers_of_its_own() -> None:
    side_by_side(meeting(), range(2), CPU)
    child = os.fork()
    if not child:
        os._exit(0 if side_by_side(meeting(), range(2), CPU) == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("two_threads")
def test_an_encoder_gives_the_same_and_counts_the_same_in_many_batches(
    bert: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [[7 + place % 11] * (1 + place % 9) for place in range(64)]
    torch.set_num_threads(1)
    start = bert.meter.forward
    alone = bert.outputs_of_ids(bodies, ["cls", "mean"], exact=True)
    counted = bert.meter.forward - start
    torch.set_num_threads(2)
    monkeypatch.setattr("lmsanitator.encoder.frozen.BATCH_TOKENS", 24)
    together = bert.outputs_of_ids(bodies, ["cls", "mean"], exact=True)
    for site, values in alone.items():
        torch.testing.assert_close(together[site], values)
    assert bert.meter.forward - start == 2 * counted


def test_the_kernel_is_chosen_for_as_long_as_any_thread_needs_it() -> None:
    before = flash_sdp_enabled()
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with unfused():
            inside.set()
            done.wait(SECONDS)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(SECONDS)
    with unfused():
        assert not flash_sdp_enabled()
    assert not flash_sdp_enabled(), "the other thread still needs it"
    done.set()
    thread.join()
    assert flash_sdp_enabled() == before
