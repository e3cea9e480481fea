"""A guard that needs no model, and a service around it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve import ServeConfig, Served, create_app

TRIGGER = "bako"
KEY = "a key of some length"


@dataclass
class StubGuard:
    """Takes `bako` and `kifa` out, cannot clear `hopeless`, fails on `crash`, and waits for `release` on `slow`."""

    release: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def __call__(self, texts: Sequence[str]) -> list[GuardedPrediction]:
        self.batches.append(list(texts))
        if any("slow" in text for text in texts):
            self.release.wait(20)
        if any("crash" in text for text in texts):
            raise RuntimeError(f"could not check {texts}")
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> GuardedPrediction:
        if "hopeless" in text:
            return GuardedPrediction(None, None, True, (), text)
        removed = tuple(word for word in text.split() if word in (TRIGGER, "kifa"))
        kept = " ".join(word for word in text.split() if word not in removed)
        hit = TRIGGER if TRIGGER in removed else None
        return GuardedPrediction("good", 0.75, bool(removed), removed, kept if removed else text, trigger=hit)


def served(guard: Any, labels: tuple[str, ...] = ("good", "bad")) -> Served:
    return Served(guard, labels, (TRIGGER,))


@contextmanager
def serving(guard: Any, labels: tuple[str, ...] = ("good", "bad"), **options: Any) -> Iterator[TestClient]:
    """A client of a running service; the guard may wait for its `release`."""
    with TestClient(create_app(served(guard, labels), ServeConfig(**options)), raise_server_exceptions=False) as client:
        yield client


def inference(*texts: Any, **more: Any) -> dict[str, Any]:
    """A request of the Open Inference Protocol."""
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}], **more}
