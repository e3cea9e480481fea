"""Keep a prompt-tuned model on a suspect encoder in service.

    guard = Guard(model, tokenizer, report)
    guard(["some text"])

Fails closed: a text whose flag cannot be cleared, or whose check failed, gets no label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.detect import ScanReport
from lmsanitator.errors import UnsupportedError
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.guard.monitor import Monitor, Watch
from lmsanitator.guard.purge import PurgeConfig, purge
from lmsanitator.vectors import PVBank


@dataclass(frozen=True)
class GuardedPrediction:
    """What became of one input."""

    label: str | None
    """None: the text was flagged and could not be purged, so it is not classified."""
    score: float | None
    """Softmax probability of the label."""
    flagged: bool
    removed: tuple[str, ...]
    """Words that were taken out."""
    text: str
    """What was classified: the input, or what is left of it."""


class Guard:
    """A classifier that checks every input for the PVs of a scan and purges what it flags.

    Args:
        model: a transformers or PEFT sequence classifier on the scanned encoder.
        tokenizer: its tokenizer.
        report: a scan report, or the bank of one.
        watch: the pass or passes to watch (`Monitor`).
        purging: how to purge.

    Raises:
        BankError: the report is on another encoder.
        TuningError: the model is no classifier.
        UnsupportedError: the pass to watch says nothing about these PVs (`Monitor`).
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerFast,
        report: ScanReport | PVBank,
        *,
        watch: Watch = "raw",
        purging: PurgeConfig | None = None,
    ) -> None:
        self.classifier = TunedClassifier(model, tokenizer)
        bank = report.bank if isinstance(report, ScanReport) else report
        self.monitor = Monitor(self.classifier, bank, watch=watch)
        self.purging = purging or PurgeConfig()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifier.labels

    def __call__(self, texts: Sequence[str]) -> list[GuardedPrediction]:
        """Classify texts; flagged ones are purged first.

        Raises:
            UnsupportedError: pairs of texts.
        """
        if not texts:
            return []
        _check_single(texts)
        reading = self.classifier.read(texts, self.monitor.prompted_sites)
        flagged = self.monitor.flags(texts, reading)
        plain = _answers(reading, self.labels)
        purged = {
            index: purge(texts[index], self.monitor, self.purging) for index in flagged.nonzero().flatten().tolist()
        }
        cleared = {index: result for index, result in purged.items() if result is not None}
        again = dict(zip(cleared, self._classify([result.text for result in cleared.values()]), strict=True))
        predictions: list[GuardedPrediction] = []
        for index, text in enumerate(texts):
            if index not in purged:
                label, score = plain[index]
                predictions.append(GuardedPrediction(label, score, label is None, (), text))
            elif index in cleared:
                result, (label, score) = cleared[index], again[index]
                predictions.append(GuardedPrediction(label, score, True, result.removed, result.text))
            else:
                predictions.append(GuardedPrediction(None, None, True, (), text))
        return predictions

    def unguarded(self, texts: Sequence[str]) -> list[str | None]:
        """What the classifier alone says, for comparison."""
        _check_single(texts)
        return [label for label, _ in self._classify(texts)]

    def _classify(self, texts: Sequence[str]) -> list[tuple[str | None, float | None]]:
        return _answers(self.classifier.read(texts, ()), self.labels) if texts else []


def _check_single(texts: Sequence[object]) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise UnsupportedError(f"expected single texts to guard, got a pair: {text!r:.60}")


def _answers(reading: Reading, labels: Sequence[str]) -> list[tuple[str | None, float | None]]:
    """Label and probability of each row; none for logits that are not finite."""
    sound = torch.isfinite(reading.logits).all(1).tolist()
    best = reading.logits.softmax(-1).max(-1)
    return [
        (labels[index], score) if good else (None, None)
        for good, index, score in zip(sound, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
