"""Dynamic batching: texts of many requests share the guard's passes.

A bounded queue and one thread that runs the guard. A batch is taken when it is full or when its first text has waited
for the longest delay; while the guard is busy, texts gather by themselves.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from lmsanitator.errors import panicked
from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve.config import ServeConfig, Served
from lmsanitator.serve.errors import RequestError
from lmsanitator.serve.logs import log

_SMOOTHING = 0.2


@dataclass(frozen=True)
class _Job:
    text: str
    arrived: float
    answer: asyncio.Future[GuardedPrediction | None]


class Batcher:
    """Runs a guard for many requests at once. Use as an asynchronous context manager.

    Args:
        observe: told the size of each batch.
    """

    def __init__(self, served: Served, config: ServeConfig, observe: Callable[[int], None]) -> None:
        self.served = served
        self.config = config
        self._observe = observe
        self._queue: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "guard")
        self._pace = config.max_delay  # seconds a text takes, smoothed
        self._busy_since: float | None = None

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._worker.cancel()
        await asyncio.wait([self._worker])
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._queue)

    @property
    def stuck(self) -> bool:
        """Whether the guard has been at one batch for longer than a request may take, or does not run at all."""
        since = self._busy_since
        late = since is not None and asyncio.get_running_loop().time() - since > self.config.timeout
        return late or self._worker.done()

    @property
    def retry_after(self) -> float:
        """Seconds until the queue will be empty at the pace of the last batches."""
        return self._pace * len(self._queue)

    def submit(self, texts: Sequence[str]) -> list[asyncio.Future[GuardedPrediction | None]]:
        """Queue texts, all or none of them. Each future gives a prediction, or None where the check failed.

        Raises:
            RequestError: 503, there is no room.
        """
        if len(self._queue) + len(texts) > self.config.max_queue:
            raise RequestError(
                503, f"expected at most {self.config.max_queue} texts to wait: try later", self.retry_after
            )
        loop = asyncio.get_running_loop()
        jobs = [_Job(text, loop.time(), loop.create_future()) for text in texts]
        self._queue.extend(jobs)
        self._arrived.set()
        return [job.answer for job in jobs]

    def withdraw(self, answers: Sequence[asyncio.Future[GuardedPrediction | None]]) -> None:
        """Nobody waits for these any more: those still in the queue make room."""
        for answer in answers:
            answer.cancel()
        if any(answer.cancelled() for answer in answers):
            self._queue = deque(job for job in self._queue if not job.answer.cancelled())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            if not batch:
                continue
            started = self._busy_since = loop.time()
            found = await loop.run_in_executor(self._thread, self._check, [job.text for job in batch])
            self._busy_since = None
            self._pace += _SMOOTHING * ((loop.time() - started) / len(batch) - self._pace)
            self._observe(len(batch))
            for job, prediction in zip(batch, found, strict=True):
                if not job.answer.done():
                    job.answer.set_result(prediction)

    async def _next_batch(self) -> list[_Job]:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        deadline = self._queue[0].arrived + self.config.max_delay
        while len(self._queue) < self.config.max_batch:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
            except TimeoutError:
                break
        return [self._queue.popleft() for _ in range(min(len(self._queue), self.config.max_batch))]

    def _check(self, texts: list[str]) -> list[GuardedPrediction | None]:
        """One pass of the guard; where it fails, one pass for each text, so that a text can only fail by itself."""
        try:
            found = self.served.guard(texts)
            if len(found) != len(texts):
                raise ValueError(f"expected {len(texts)} predictions, the guard gave {len(found)}")
            return [one if self._sound(one) else None for one in found]
        except BaseException as error:
            if not (isinstance(error, Exception) or panicked(error)):
                raise
            # whatever it was, these texts are not checked
            log.error("check failed", exc_info=error, extra={"facts": {"texts": len(texts)}})
            return [None] if len(texts) == 1 else [one for text in texts for one in self._check([text])]

    def _sound(self, prediction: GuardedPrediction) -> bool:
        """A label has to be one of the model's, with a probability, and where there is none it has to be for something
        that was seen in the text; anything else is a failed check."""
        if prediction.label is None:
            return not prediction.failed
        score = prediction.score
        return prediction.label in self.served.labels and score is not None and math.isfinite(score) and 0 <= score <= 1
