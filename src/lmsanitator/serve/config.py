"""What is served, and within which limits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lmsanitator.errors import UsageError
from lmsanitator.guard import GuardedPrediction
from lmsanitator.text import words

Check = Callable[[Sequence[str]], list[GuardedPrediction]]
"""A guard: texts in, one prediction for each in the same order out."""


@dataclass(frozen=True)
class Served:
    """A guarded classifier.

    Args:
        guard: called from one thread at a time.
        labels: every label it can give; another one counts as a failed check.
        triggers: the triggers that the scan named.
        remarks: what whoever starts the service should know, such as vectors that are not watched.
    """

    guard: Check
    labels: tuple[str, ...]
    triggers: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def trigger_of(self, word: str) -> str | None:
        """The named trigger that a removed word is part of, in any case as the guard looks for them."""
        folded = word.casefold()
        parts = ((trigger, words(trigger)) for trigger in self.triggers)
        return next((trigger for trigger, part in parts if folded in (one.casefold() for one in part)), None)


@dataclass(frozen=True)
class ServeConfig:
    """Limits of the service.

    Args:
        name: the model's name in the Open Inference Protocol.
        max_bytes: of a request's body.
        max_words: of a text, as `lmsanitator.text.words` counts them.
        max_texts: of a request.
        max_batch: texts that the guard is given at once.
        max_delay: seconds that a text waits for others to share its batch.
        max_queue: texts that wait; a request that does not fit any more is answered with 503.
        max_requests: requests that are open at once; bounds the memory of bodies that are still being read.
        timeout: seconds to read a request, and again to answer it.
        api_key: what `Authorization: Bearer` has to bring along; None asks for nothing.
        log_text: write the texts into the log.

    Raises:
        UsageError: a limit that makes no sense.
    """

    name: str = "guarded"
    max_bytes: int = 2**18
    max_words: int = 1000
    max_texts: int = 64
    max_batch: int = 32
    max_delay: float = 0.005
    max_queue: int = 256
    max_requests: int = 512
    timeout: float = 30.0
    api_key: str | None = field(default=None, repr=False)
    log_text: bool = False

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_words", "max_texts", "max_batch", "max_queue", "max_requests"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected a {name} of 1 or more, got {getattr(self, name)}")
        if self.max_texts > self.max_queue:
            raise UsageError(f"expected room for a request of {self.max_texts} texts, the queue takes {self.max_queue}")
        if not 0 <= self.max_delay < self.timeout < math.inf:
            raise UsageError(f"expected a delay between 0 and the timeout of {self.timeout} s, got {self.max_delay} s")
        if not self.name or "/" in self.name:
            raise UsageError(f"expected a model name without slashes, got {self.name!r}")
        if self.api_key is not None and not self.api_key:
            raise UsageError("expected an API key, got an empty one")
