"""The load generator counts what the service answers."""

import math

from benchmarks.serving import load, quantile
from tests.serve.running import running
from tests.serve.stub import StubGuard


def test_every_answer_is_counted_with_its_flag() -> None:
    with running(StubGuard()) as port:
        seen, seconds = load(port, ["a bako b", "a"], 4, 0.5)
    assert set(seen.statuses) == {200}
    assert len(seen.milliseconds) == seen.statuses[200] >= 4
    assert 0 < seen.flagged < seen.statuses[200]
    assert (seen.errors, seen.undeclared) == (0, 0)
    assert seconds >= 0.5


def test_a_refusal_is_counted_as_backpressure_and_no_error() -> None:
    with running(StubGuard(), max_queue=1, max_texts=1, max_batch=1, max_delay=0.05) as port:
        seen, _ = load(port, ["a"], 8, 0.3)
    assert seen.statuses[503] > 0
    assert seen.statuses[200] > 0
    assert (seen.errors, seen.undeclared) == (0, 0)


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (50.0, 99.0, 7.0)
    assert math.isnan(quantile([], 0.5))
