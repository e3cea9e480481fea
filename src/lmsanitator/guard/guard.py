"""Keep a prompt-tuned model on a suspect encoder in service.

    guard = Guard(model, tokenizer, report)
    guard(["some text"])
    guard([("some text", "another")])  # for pairs: Guard(..., clean=pairs of that kind)

Fails closed: a text whose flag cannot be cleared, or whose check failed, gets no label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock
from typing import TypedDict

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.detect import ScanReport
from lmsanitator.errors import UnsupportedError, UsageError
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.guard.monitor import Check, Monitor, Watch, bank_in
from lmsanitator.guard.purge import Purged, purge_all
from lmsanitator.guard.search import PurgeConfig
from lmsanitator.text import Text, sides
from lmsanitator.vectors import PVBank

Answer = tuple[str | None, float | None]
"""Label and score; none of both where the logits are not finite."""
FAILED = "the check failed"
_NOT_FINITE = "the classifier gave no finite score"


class Evidence(TypedDict, total=False):
    """Part of a GuardedPrediction."""

    pv: int | None
    trigger: str | None
    match: float | None
    threshold: float | None


@dataclass(frozen=True)
class GuardedPrediction:
    """What became of one input."""

    label: str | None
    """None: the text was flagged and could not be purged, so it is not classified."""
    score: float | None
    """Softmax probability of the label."""
    flagged: bool
    removed: tuple[str, ...]
    """Words that were taken out, of a pair from either text."""
    text: Text
    """What was classified: the input, or what is left of it."""
    pv: int | None = None
    """Index into the bank of the PV that the input came closest to, in units of its threshold; None where none is
    watched, or the check failed."""
    trigger: str | None = None
    """The trigger of that PV, where the scan named it."""
    match: float | None = None
    """Share of the output's signs that agree with that PV, 0 to 1."""
    threshold: float | None = None
    """The match above which the input is flagged."""
    reason: str | None = None
    """Why there is no label."""

    @property
    def failed(self) -> bool:
        """Whether there is no label because something went wrong, and not for anything that was seen in the text."""
        return self.reason in (FAILED, _NOT_FINITE)


class Guard:
    """A classifier that checks every input for the PVs of a scan and purges what it flags. Threads take turns.

    Args:
        model: a transformers or PEFT sequence classifier on the scanned encoder.
        tokenizer: its tokenizer.
        report: a scan report, or the bank of one.
        watch: the pass or passes to watch (`Monitor`).
        purging: how to purge.
        rate: share of clean texts that may be flagged (`Thresholds` says what is guaranteed).
        clean: clean texts to set the thresholds by, of the kind that will be served; needed for pairs of texts, for
            which packaged sentences say nothing.

    Raises:
        BankError: the report is on another encoder and does not fit this one, or came without its bank.
        CorpusError: too few clean texts for the rate, or pairs among single ones.
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
        rate: float = 0.005,
        clean: Sequence[Text] | None = None,
    ) -> None:
        self.classifier = TunedClassifier(model, tokenizer)
        self.monitor = Monitor(self.classifier, bank_in(report), watch=watch, rate=rate, clean=clean)
        self.purging = purging or PurgeConfig()
        self._turn = RLock()  # the hook that reads a pass, and how a tokenizer cuts, belong to the model, not to a call

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifier.labels

    def __call__(self, texts: Sequence[Text]) -> list[GuardedPrediction]:
        """Classify texts, or pairs of texts; flagged ones are purged first.

        Raises:
            UnsupportedError: pairs of texts where the thresholds are those of single ones, or the other way round.
            UsageError: a text instead of a list of them.
        """
        if isinstance(texts, str):  # which is a sequence of texts, too, of one letter each
            raise UsageError("expected a list of texts, got one text")
        self._check_kind(texts)
        with self._turn:
            reasons = [self._unreadable(text) for text in texts]
            read = iter(self._predict([text for text, reason in zip(texts, reasons, strict=True) if reason is None]))
            return [
                next(read) if reason is None else _refused(text, reason)
                for text, reason in zip(texts, reasons, strict=True)
            ]

    def _unreadable(self, text: Text) -> str | None:
        """Why a text is not even looked at, if so."""
        return self.classifier.unreadable(text) if is_unicode(text) else "it is not valid Unicode"

    def _predict(self, texts: Sequence[Text]) -> list[GuardedPrediction]:
        checked, answers = self._read(texts)
        flagged = set(checked.flags.nonzero().flatten().tolist())
        purged = self._purge(texts, sorted(index for index in flagged if checked.pv[index] >= 0))
        predictions: list[GuardedPrediction] = []
        for index, text in enumerate(texts):
            seen = evidence(self.monitor, checked, index)
            if index not in flagged:
                predictions.append(_answered(text, answers[index], None, seen))
            elif index in purged:
                result, answer = purged[index]
                predictions.append(_answered(text, answer, result, seen))
            else:
                reason = FAILED if checked.pv[index] < 0 else "the flag cannot be cleared"
                predictions.append(_refused(text, reason, seen))
        return predictions

    def _purge(self, texts: Sequence[Text], flagged: Sequence[int]) -> dict[int, tuple[Purged, Answer]]:
        """The flagged texts that could be purged, with the answer to what is left of them. A label is given only to a
        text that the monitor passes in the same read, purged or not."""
        found = purge_all([texts[index] for index in flagged], self.monitor, self.purging)
        purged = {index: result for index, result in zip(flagged, found, strict=True) if result is not None}
        checked, answers = self._read([result.text for result in purged.values()])
        return {
            index: (purged[index], answer)
            for index, answer, still in zip(purged, answers, checked.flags.tolist(), strict=True)
            if not still
        }

    def unguarded(self, texts: Sequence[Text]) -> list[str | None]:
        """What the classifier alone says, for comparison; None where it says nothing."""
        self._check_kind(texts)
        with self._turn:
            reads = [self._unreadable(text) is None for text in texts]
            readable = [text for text, read in zip(texts, reads, strict=True) if read]
            answers = iter(_answers(self.classifier.read(readable, ()), self.labels) if readable else [])
            return [next(answers)[0] if read else None for read in reads]

    def _check_kind(self, texts: Sequence[object]) -> None:
        """Raise UnsupportedError unless all texts are of the kind that the thresholds are set for: where nothing is
        watched, of one kind."""
        pairs = self.monitor.pairs if self.monitor.kept else bool(texts) and not isinstance(texts[0], str)
        for text in texts:
            if pairs and not _is_pair(text):
                raise UnsupportedError(f"expected pairs of texts to guard, as the clean ones are, got {text!r:.60}")
            if not pairs and not isinstance(text, str):
                raise UnsupportedError(
                    f"expected single texts to guard, got {text!r:.60}: give clean pairs to set thresholds for pairs by"
                )

    def _read(self, texts: Sequence[Text]) -> tuple[Check, list[Answer]]:
        """The check of texts, and their labels from the very same pass."""
        if not texts:
            return self.monitor.check(()), []
        reading = self.classifier.read(texts, self.monitor.prompted_sites)
        return self.monitor.check(texts, reading, named=self.purging.named), _answers(reading, self.labels)


def evidence(monitor: Monitor, checked: Check, index: int) -> Evidence:
    """Which PV a text came closest to, and how close."""
    pv = int(checked.pv[index])
    if pv < 0:
        return {}
    return {
        "pv": pv,
        "trigger": monitor.bank[pv].trigger,
        "match": round(float(checked.match[index]), 4),
        "threshold": round(float(checked.threshold[index]), 4),
    }


def _answered(text: Text, answer: Answer, purged: Purged | None, seen: Evidence) -> GuardedPrediction:
    label, score = answer
    if label is None:
        return _refused(text, _NOT_FINITE, seen)
    if purged is None:
        return GuardedPrediction(label, score, False, (), text, **seen)
    return GuardedPrediction(label, score, True, purged.removed, purged.text, **seen)


def _refused(text: Text, reason: str, seen: Evidence | None = None) -> GuardedPrediction:
    return GuardedPrediction(None, None, True, (), text, **(seen or {}), reason=reason)


def is_unicode(text: Text) -> bool:
    """Whether a text holds no halves of characters, which no tokenizer takes."""
    try:
        "".join(sides(text)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_pair(text: object) -> bool:
    return isinstance(text, tuple) and len(text) == 2 and all(isinstance(side, str) for side in text)


def _answers(reading: Reading, labels: Sequence[str]) -> list[Answer]:
    """Label and probability of each row; none for logits that are not finite."""
    sound = torch.isfinite(reading.logits).all(1).tolist()
    best = reading.logits.softmax(-1).max(-1)
    return [
        (labels[index], score) if good else (None, None)
        for good, index, score in zip(sound, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
