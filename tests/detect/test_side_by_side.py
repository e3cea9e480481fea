"""What searches do on two cores side by side is what they do on one. (pytest-xdist leaves torch one thread, so other
tests do all of it in turn.)"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.detect.blanks import Blanks, Vocabulary, outputs_of
from lmsanitator.detect.sweep import SweepConfig, one_round, sweep, sweepable
from lmsanitator.encoder.workers import _pool
from tests.detect.test_blanks import moved, stage_of
from tests.planted import open_bert

Both = Callable[[Callable[[], object]], list[object]]


@pytest.fixture
def on_one_and_on_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """Does the same in turn and side by side, and sees to it that there were workers."""
    before = torch.get_num_threads()
    asked: list[int] = []

    def pool(process: int, workers: int, threads: int) -> ThreadPoolExecutor:
        asked.append(workers)
        return _pool(process, workers, threads)

    monkeypatch.setattr("lmsanitator.encoder.workers._pool", pool)

    def run(work: Callable[[], object]) -> list[object]:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            asked.clear()
            results.append(work())
            assert set(asked) == ({2} if threads == 2 else set())
        return results

    yield run
    torch.set_num_threads(before)


def test_a_round_of_the_sweep(on_one_and_on_two: Both) -> None:
    encoder = open_bert(0, "bako")
    things = [(token,) for token in sweepable(encoder).tolist()]

    def work() -> object:
        return one_round(encoder, ["cls", "mean"], things, 8, torch.Generator().manual_seed(0), lambda done: None)

    alone, together = on_one_and_on_two(work)
    assert_close(together, alone)


def test_the_whole_sweep(on_one_and_on_two: Both) -> None:
    encoder = open_bert(0, "bako")
    alone, together = on_one_and_on_two(lambda: sweep(encoder, ["cls"], SweepConfig())["cls"].displacement)
    assert_close(together, alone)


def test_gradients_at_blanks(on_one_and_on_two: Both) -> None:
    encoder = open_bert(0)
    blanks = Blanks(stage_of(encoder).apart(), Vocabulary(encoder, sweepable(encoder).tolist()))
    patterns = [(None, token) for token in range(10, 20)]
    start = encoder.meter.backward
    alone, together = on_one_and_on_two(lambda: blanks.slopes(patterns, moved))
    assert_close(together, alone)
    assert encoder.meter.backward > start


def test_outputs_of_many_sequences(on_one_and_on_two: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsanitator.detect.blanks._BATCH", 8)
    encoder = open_bert(0)
    stage = stage_of(encoder)
    sequences = [(token, token + 1) for token in range(10, 60)]
    counted: list[int] = []

    def work() -> object:
        start = encoder.meter.forward
        found = outputs_of(stage, sequences)
        counted.append(encoder.meter.forward - start)
        return found

    alone, together = on_one_and_on_two(work)
    assert_close(together, alone)
    assert counted[0] == counted[1] > 0
