"""What Prometheus scrapes at /metrics."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve.config import Served

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one service, in a registry of its own.

    A flag counts for the trigger that the scan named with the PV the text came closest to; PVs without a named one, and
    texts that hit none, count together as `unnamed`. No word of a user becomes a label.
    """

    def __init__(self, served: Served) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lmsanitator_requests", "Requests by endpoint and status.", ["endpoint", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "lmsanitator_request_seconds",
            "From the first byte of a request to its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.texts = Counter(
            "lmsanitator_texts",
            "Texts by outcome: clear, purged (flagged, cleared), refused (no label) or failed (no check).",
            ["outcome"],
            registry=self.registry,
        )
        self.flags = Counter("lmsanitator_flags", "Texts that were flagged.", registry=self.registry)
        self.hits = Counter(
            "lmsanitator_pv_hits",
            "Texts that were flagged, by the trigger of the PV they hit.",
            ["trigger"],
            registry=self.registry,
        )
        self.batches = Histogram(
            "lmsanitator_batch_texts", "Texts in a batch of the guard.", buckets=_SIZES, registry=self.registry
        )
        self.waiting = Gauge("lmsanitator_queue_texts", "Texts that wait for the guard.", registry=self.registry)
        for outcome in ("clear", "purged", "refused", "failed"):
            self.texts.labels(outcome)
        for trigger in (*served.triggers, "unnamed"):
            self.hits.labels(trigger)

    def count(self, predictions: Iterable[GuardedPrediction | None]) -> None:
        """Count what became of texts; None is one whose check failed."""
        for prediction in predictions:
            self.texts.labels(outcome(prediction)).inc()
            if prediction is None:
                continue
            if prediction.flagged:
                self.flags.inc()
                self.hits.labels(prediction.trigger or "unnamed").inc()

    def page(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)


def outcome(prediction: GuardedPrediction | None) -> str:
    """clear, purged, refused or failed."""
    if prediction is None:
        return "failed"
    if prediction.label is None:
        return "refused"
    return "purged" if prediction.flagged else "clear"
