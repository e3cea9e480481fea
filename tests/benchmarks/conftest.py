"""What the tests of the studies of defence share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record
from benchmarks.defence import study


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of its own, and work that is done at once instead of in processes."""

    def at_once(function: Callable[[Any], Any], pieces: Sequence[Any], jobs: int) -> Iterator[Any]:
        return map(function, pieces)

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "_module", lambda: "benchmarks.defence")
    monkeypatch.setattr(study, "spread", at_once)
    return tmp_path
