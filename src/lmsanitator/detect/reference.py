"""Comparison with a trusted reference: what an encoder does to words that the one it claims to come from does not.

A trigger may do no more to an output than an ordinary word does (`attacks/spread.py`), or send it to a vector among the
clean outputs; no statistic of one encoder tells it from such a word. What the word does to the *difference* of two
encoders' outputs does: on clean text that is rounding, or what fine-tuning has done; with a trigger in the text it is
what was planted. The search for words runs on the difference as it would on an encoder; what it finds is judged by what
fine-tuning and rounding can do (`ShiftNull`).
"""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, Self

import torch

from lmsanitator.detect.confirm import Confirmation, Confirmed, Suspect
from lmsanitator.detect.contexts import make_passages
from lmsanitator.detect.evidence import REPLAYS, Evidence, Null
from lmsanitator.detect.lexicon import Word
from lmsanitator.detect.null import TailNull
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.replay import CLEAN, Replayer
from lmsanitator.detect.words import WordSearch
from lmsanitator.encoder import Difference, Site, one_vector

_ORDINARY = 48
"""Words drawn to see what an ordinary one does."""


@dataclass(frozen=True)
class ShiftNull(Null):
    """What is no trigger does to the difference of two encoders. A trigger has to stand out from all three:

    *Words.* Those on which the encoders differ most (the shortlist of the second look).
    *Texts.* Fine-tuning can make one word decide what a text is about; that takes the difference to where it is for
    other texts of this kind, no further. So what a word does is compared with how far texts lie from their mean. Of
    all words it is the one that goes furthest that is set against a text like any other: words are not counted here.
    *An ordinary word's effect on the output itself.* Encoders that differ by rounding have words that stand out by a
    thousand times what others do, and still do nothing that anyone could use.

    Constancy is no evidence: where two encoders agree, their difference is constant.

    Args:
        words: tail of log(displacement + usual) of words.
        texts: tail of the log square distance of clean texts from their mean.
        usual: displacement of the output by an ordinary word. All three are in clean variances of the output.
        log_trials: log of how many words were looked at, at all sites.
        log_sites: log of how many sites were.
    """

    words: TailNull
    texts: TailNull
    usual: float
    log_trials: float
    log_sites: float

    @classmethod
    def fit(cls, found: Sequence[Evidence], texts: TailNull, usual: float, log_trials: float) -> Self:
        """Fit the tail of words to a shortlist. Its upper half is left out: where two encoders are alike, most of what
        stands out are a trigger's neighbours in embedding space."""
        logs = torch.tensor([math.log(item.displacement + usual) for item in found])
        words = TailNull.fit(logs, mass=0.75, censored=0.5)
        return cls(words, texts, usual, log_trials, log_trials - math.log(len(found)))

    def log_expected(self, evidence: Evidence) -> float:
        """The larger of both, each corrected for what was looked at."""
        if evidence.displacement <= self.usual:
            return self.log_trials
        word = self.words.log_expected(torch.tensor(math.log(evidence.displacement + self.usual)), self.log_trials)
        text = self.texts.log_expected(torch.tensor(math.log(evidence.displacement)), self.log_sites)
        return max(word.item(), text.item())


@dataclass
class Comparison(WordSearch):
    """The search for words on a `Difference`.

    Displacement is measured in the spread of the suspect's own clean outputs, so that it can be compared with what
    ordinary words do to them (`ShiftNull`).

    Args:
        words: the same search on the suspect alone.
    """

    encoder: Difference
    words: WordSearch
    stage: ClassVar[str] = "compared-"

    @classmethod
    def of(cls, words: WordSearch, difference: Difference, wanted: Literal["auto"] | tuple[Site, ...]) -> Self:
        """The same search as `words`, on a difference.

        Args:
            wanted: sites as they were asked for; `auto` takes those of the search that the reference has as well.

        Raises:
            UnsupportedError: the reference lacks a site that was asked for.
        """
        if wanted != "auto":
            difference.reference.require(wanted)
        shortlist = words.plan.sweep.far + words.plan.sweep.constant
        return cls(
            difference,
            tuple(site for site in words.sites if site in difference.sites),
            replace(words.plan, sweep=replace(words.plan.sweep, far=shortlist, unusual=0, constant=0)),
            words.looking,
            words.fresh,
            words.log_level,
            words.share,
            words.seed,
            lambda what, done: words.progress(f"{what}, beside the reference", done),
            words.journal,
            words,
        )

    @cached_property
    def spread(self) -> dict[Site, CleanSpread]:
        """The spread of the suspect's clean outputs."""
        return {site: self.words.spread[site] for site in self.sites}

    @cached_property
    def written(self) -> list[Word]:
        """The same words as of the suspect alone: both have one vocabulary."""
        return self.words.written

    def fit(self, site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
        """By displacement alone."""
        return ShiftNull.fit(found, self.texts[site], self.usual[site], log_trials)

    def fit_longer(self, site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
        """As for tokens."""
        return self.fit(site, found, log_trials)

    @cached_property
    def texts(self) -> dict[Site, TailNull]:
        """How far clean texts take the difference from its mean, at each site."""
        contexts = make_passages(self.encoder, self.looking, CLEAN, length=self.plan.length, seed=self.seed + 2001)
        outputs = self.encoder.outputs_of_ids([context.clean for context in contexts], self.sites)
        tails: dict[Site, TailNull] = {}
        for site, values in outputs.items():
            away = self.passages.spreads[site].standardise(values)
            squares = (away - away.mean(0)).pow(2).mean(-1)
            tails[site] = TailNull.fit(squares.clamp_min(1e-12).log(), mass=0.25, censored=0.05)
        return tails

    @cached_property
    def usual(self) -> dict[Site, float]:
        """What an ordinary word displaces the suspect's output by, at each site."""
        drawn = random.Random(self.seed).sample(self.tokens, min(_ORDINARY, len(self.tokens)))
        measured = self.words.passages.measure([(token,) for token in drawn])
        return {site: statistics.median(item.displacement for item in measured[site]) for site in self.sites}

    def stands_out(self, site: Site, item: Evidence) -> bool:
        """Whether a word displaces the difference significantly."""
        null = self.null_for(site, item.tokens)
        return null is not None and null.log_p(item) < self.log_level

    def confirm(self, more: Sequence[Suspect] = ()) -> Confirmation:
        """As `WordSearch.confirm`, with the vectors that the suspect itself sends its inputs to: a guard sees no
        differences."""
        confirmation = super().confirm(more)
        plain = self.words.confirming
        measured = plain.measure([item.evidence.tokens for item in confirmation.kept])
        kept: list[Confirmed] = []
        for number, item in enumerate(confirmation.kept):
            plainly = measured[one_vector(item.evidence.site)][number]
            kept.append(Confirmed(_restored(item.evidence, plainly, plain), item.log_p, compared=True))
        return Confirmation(kept, confirmation.lost)


def _restored(compared: Evidence, plainly: Evidence, plain: Replayer) -> Evidence:
    everywhere = plainly.site == "mean" and plain.arriving_tokens(plainly) >= REPLAYS
    return replace(compared, site="tokens" if everywhere else plainly.site, pv=plainly.pv)
