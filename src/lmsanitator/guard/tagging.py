"""Keep a classifier of words (named entity recognition and the like) on a suspect encoder in service.

    guard = TaggingGuard(model, tokenizer, report, clean=sentences)
    guard([["John", "lives", "in", "Berlin", "."]])

The raw pass is watched, with the words as one text: an attack on all tokens (POR for sequence labelling) arrives at the
mean, and at CLS. Fails closed as `Guard` does: a sentence that cannot be cleared has no labels at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.detect import ScanReport
from lmsanitator.errors import UsageError
from lmsanitator.guard.classifier import TunedTagger
from lmsanitator.guard.guard import FAILED, Evidence, evidence, is_unicode
from lmsanitator.guard.monitor import Monitor, bank_in
from lmsanitator.guard.parts import WordParts
from lmsanitator.guard.purge import Purged, purge_parts
from lmsanitator.guard.search import PurgeConfig
from lmsanitator.tune import OUTSIDE, WordScores, predict_words
from lmsanitator.vectors import PVBank

Words = Sequence[str]


@dataclass(frozen=True)
class GuardedTags:
    """What became of one sentence."""

    words: tuple[str, ...]
    """The input."""
    labels: tuple[str, ...] | None
    """One for each word of the input, `O` for words that were removed or not read. None: the sentence was flagged and
    could not be purged, so it is not classified."""
    scores: tuple[float | None, ...] | None
    """Softmax probability of each label; None for words that were removed or not read."""
    flagged: bool
    removed: tuple[int, ...] = ()
    """Where the words stood that were taken out."""
    unread: tuple[int, ...] = ()
    """Words that were kept and not read: behind the window, or nothing to the tokenizer."""
    pv: int | None = None
    trigger: str | None = None
    match: float | None = None
    threshold: float | None = None
    """As in `GuardedPrediction`."""
    reason: str | None = None
    """Why there are no labels."""


class TaggingGuard:
    """A classifier of words that checks every sentence for the PVs of a scan and purges what it flags.

    A word goes or stays whole. Words of the input and their labels stay aligned, whatever is removed.
    Threads take turns.

    Args:
        model: a transformers or PEFT token classifier with BIO labels on the scanned encoder.
        tokenizer: its tokenizer.
        report: a scan report, or the bank of one.
        purging: how to purge.
        rate: share of clean sentences that may be flagged (`Thresholds` says what is guaranteed).
        clean: clean sentences to set the thresholds by, of the kind that will be served; packaged ones where not given.

    Raises:
        BankError: the report is on another encoder and does not fit this one, or came without its bank.
        CorpusError: too few clean sentences for the rate.
        TuningError: the model does not label tokens in BIO.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerFast,
        report: ScanReport | PVBank,
        *,
        purging: PurgeConfig | None = None,
        rate: float = 0.005,
        clean: Sequence[Words] | None = None,
    ) -> None:
        self.tagger = TunedTagger(model, tokenizer)
        texts = None if clean is None else [" ".join(words) for words in clean]
        self.monitor = Monitor(self.tagger, bank_in(report), rate=rate, clean=texts)
        self.purging = purging or PurgeConfig()
        self._turn = RLock()  # how a tokenizer cuts belongs to it, not to a call

    @property
    def labels(self) -> tuple[str, ...]:
        return self.tagger.labels

    def __call__(self, sentences: Sequence[Words]) -> list[GuardedTags]:
        """Label the words of sentences; flagged sentences are purged first.

        Raises:
            UsageError: a string where the words of a sentence are asked for.
        """
        if isinstance(sentences, str) or any(isinstance(words, str) for words in sentences):
            raise UsageError("expected sentences as lists of their words, got a string")
        with self._turn:
            return self._tagged(sentences)

    def _tagged(self, sentences: Sequence[Words]) -> list[GuardedTags]:
        answers = [_refused(words, "it is not valid Unicode", {}) for words in sentences]
        readable = [index for index, words in enumerate(sentences) if is_unicode(" ".join(words))]
        given = [sentences[index] for index in readable]
        checked = self.monitor.check([" ".join(words) for words in given], named=self.purging.named)
        flagged = set(checked.flags.nonzero().flatten().tolist())
        purged = self._purge(given, sorted(index for index in flagged if checked.pv[index] >= 0))
        rest = {index: result.positions for index, result in purged.items()}
        rest |= {index: () for index in range(len(given)) if index not in flagged}
        scores = dict(zip(rest, self._scores([_without(given[at], gone) for at, gone in rest.items()]), strict=True))
        for place, (index, words) in enumerate(zip(readable, given, strict=True)):
            seen = evidence(self.monitor, checked, place)
            if place in scores:
                answers[index] = self._answered(words, scores[place], rest[place], seen, flagged=place in flagged)
            else:
                reason = FAILED if checked.pv[place] < 0 else "the flag cannot be cleared"
                answers[index] = _refused(words, reason, seen)
        return answers

    def unguarded(self, sentences: Sequence[Words]) -> list[list[str]]:
        """What the classifier alone says, for comparison."""
        with self._turn:
            return [scores.tags(self.labels) for scores in self._scores(sentences)]

    def _purge(self, sentences: Sequence[Words], flagged: Sequence[int]) -> dict[int, Purged]:
        """The flagged sentences that could be purged: the monitor passes what is left of them."""
        window = self.tagger.encoder.window
        found = purge_parts([WordParts(sentences[index], window) for index in flagged], self.monitor, self.purging)
        purged = {index: result for index, result in zip(flagged, found, strict=True) if result is not None}
        left = [" ".join(_without(sentences[index], result.positions)) for index, result in purged.items()]
        still = self.monitor.check(left, named=self.purging.named).flags.tolist()
        return {index: result for (index, result), flag in zip(purged.items(), still, strict=True) if not flag}

    def _scores(self, sentences: Sequence[Words]) -> list[WordScores]:
        return predict_words(self.tagger.model, self.tagger.encoder.tokenizer, sentences, self.tagger.longest)

    def _answered(
        self, words: Words, scores: WordScores, gone: tuple[int, ...], seen: Evidence, *, flagged: bool
    ) -> GuardedTags:
        if not bool(torch.isfinite(scores.logits).all()):
            return _refused(words, "the classifier gave no finite score", seen)
        kept = [at for at in range(len(words)) if at not in gone]
        best = scores.logits.softmax(1).amax(1).tolist()
        tags = dict(zip(kept, scores.tags(self.labels), strict=True))
        sure = {at: score for at, score, read in zip(kept, best, scores.read.tolist(), strict=True) if read}
        return GuardedTags(
            tuple(words),
            tuple(tags.get(at, OUTSIDE) for at in range(len(words))),
            tuple(sure.get(at) for at in range(len(words))),
            flagged,
            gone,
            tuple(at for at in kept if at not in sure),
            **seen,
        )


def _without(words: Words, gone: tuple[int, ...]) -> list[str]:
    return [word for at, word in enumerate(words) if at not in gone]


def _refused(words: Words, reason: str, seen: Evidence) -> GuardedTags:
    return GuardedTags(tuple(words), None, None, True, **seen, reason=reason)
