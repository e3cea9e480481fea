"""The search for words: sweeps, second look, confirmation, on an encoder or on its difference from another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from lmsanitator.detect.config import DICTIONARY_SHARE, Plan
from lmsanitator.detect.confirm import Confirmation, Suspect, confirm, in_order
from lmsanitator.detect.contexts import Context, make_contexts, make_passages
from lmsanitator.detect.evidence import REPLAYS, Evidence, Null
from lmsanitator.detect.jointly import jointly
from lmsanitator.detect.journal import Journal, pack_sweep, pack_words, unpack_sweep, unpack_words
from lmsanitator.detect.lexicon import FEWEST, Word, null_of_words, spelled, sweep_words
from lmsanitator.detect.look import Look, look_again, null_of
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.replay import CLEAN, Replayer, clean_spreads
from lmsanitator.detect.sweep import SweepResult, sweep
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError
from lmsanitator.progress import Progress
from lmsanitator.text import dictionary, words

_JUDGING, _JUDGING_TOKENS = 32, 24
"""Texts that words are compared in, and their longest length."""


@dataclass
class WordSearch:
    """One search under way; each stage runs when it is first asked for.

    Args:
        looking: texts that outliers are judged in.
        fresh: other texts, to confirm in.
        log_level: log of the p-value below which evidence is significant.
        share: of the false positives that the level allows, those that this search may be to blame for.
    """

    encoder: FrozenEncoder
    sites: tuple[Site, ...]
    plan: Plan
    looking: Sequence[str]
    fresh: Sequence[str]
    log_level: float
    share: float
    seed: int
    progress: Progress
    journal: Journal

    stage: ClassVar[str] = ""
    """What the stages of this search begin with in the journal."""

    @cached_property
    def swept(self) -> dict[Site, SweepResult]:
        """What the sweep saw of every token, at each site."""

        def find() -> dict[Site, SweepResult]:
            return sweep(self.encoder, self.sites, self.plan.sweep, seed=self.seed, progress=self.progress)

        return self.journal.once(f"{self.stage}sweep", find, pack_sweep, unpack_sweep)

    @property
    def tokens(self) -> list[int]:
        """The tokens that were swept."""
        found: list[int] = self.swept[self.sites[0]].tokens.tolist()
        return found

    @cached_property
    def passages(self) -> Replayer:
        """The long natural text that outliers are judged in."""
        return self._replayer(self.looking, self.plan.passages, seed=1, exact=False)

    @cached_property
    def confirming(self) -> Replayer:
        """The fresh passages; all confirmations share them."""
        return self._replayer(self.fresh, 2 * self.plan.passages, seed=4, exact=True)

    @cached_property
    def judging(self) -> Replayer:
        """Many short texts, to tell words that lead the same way apart."""
        seed = self.seed + 6
        contexts, clean = (
            make_contexts(self.encoder, self.fresh, count, longest=_JUDGING_TOKENS, seed=one)
            for one, count in ((seed, _JUDGING), (seed + 1000, CLEAN))
        )
        return Replayer(self.encoder, self.sites, contexts, self._spread(clean), exact=False)

    @cached_property
    def vectors(self) -> Replayer:
        """The same short texts, to measure in fp32 where triggers lead."""
        judging = self.judging
        return Replayer(self.encoder, self.sites, judging.contexts, judging.spreads, exact=True)

    @cached_property
    def seen(self) -> Look:
        """The second look at the sweep's outliers."""
        shortlists = {site: [(token,) for token in swept.shortlist.tolist()] for site, swept in self.swept.items()}
        share = self.share * (1 - DICTIONARY_SHARE if self.written else 1)
        return look_again(self.passages, shortlists, share=share, fit=self.fit, progress=self.progress)

    @cached_property
    def dictionary(self) -> frozenset[str]:
        """The words of the dictionary."""
        return frozenset(dictionary())

    @cached_property
    def written(self) -> list[Word]:
        """The words of the dictionary, and of the texts, that are several tokens; none where they are too few to be
        swept."""
        texts = {word.lower() for text in (*self.looking, *self.fresh) for word in words(text) if word.isalpha()}
        found = spelled(self.encoder, sorted({*self.dictionary, *texts}))
        return found if len(found) >= FEWEST else []

    @cached_property
    def longer(self) -> Look:
        """The second look at the outliers of the dictionary."""

        def find() -> list[Word]:
            shape = self.plan.dictionary
            return sweep_words(self.encoder, self.sites, self.written, shape, seed=self.seed, progress=self.progress)

        if not self.written:
            return Look({}, {})
        listed = self.journal.once(f"{self.stage}dictionary", find, pack_words, unpack_words)
        share = self.share * DICTIONARY_SHARE
        shortlists = dict.fromkeys(self.sites, listed)
        try:
            return look_again(self.passages, shortlists, share=share, fit=self.fit_longer, progress=self.progress)
        except UnsupportedError:  # too few that begin differently, as where only single letters are Latin: no null
            return Look({}, {})

    @property
    def judged(self) -> int:
        """Words of several tokens that were swept and could be judged."""
        return len(self.written) if self.longer.seen else 0

    def fit(self, site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
        """The null of tokens, of what the second look has found."""
        return null_of(site, found, log_trials)

    def fit_longer(self, site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
        """The null of words of several tokens."""
        return null_of_words(site, found, log_trials)

    def null_for(self, site: Site, word: Word) -> Null | None:
        """What a word is judged by, if it has had a second look."""
        if len(word) == 1:
            return self.seen.nulls[site]
        return self.longer.nulls.get(site) if word in self._longer else None

    @cached_property
    def _longer(self) -> set[Word]:
        return {item.tokens for found in self.longer.seen.values() for item in found}

    @cached_property
    def suspects(self) -> list[Suspect]:
        """What stands out among outliers; it has to prove itself again."""
        return [
            Suspect(item)
            for look in (self.seen, self.longer)
            for site, found in look.seen.items()
            for item in found
            if self.stands_out(site, item)
        ]

    def stands_out(self, site: Site, item: Evidence) -> bool:
        """Whether an outlier is worth a confirmation: less than one like it is expected by chance, or it sends most
        passages to one place."""
        null = self.null_for(site, item.tokens)
        return null is not None and (null.log_expected(item) < 0 or item.constant_rate >= REPLAYS)

    def confirm(self, more: Sequence[Suspect] = ()) -> Confirmation:
        """Replay every suspect on passages nothing before has seen, in fp32.

        Args:
            more: suspects of other searches on this encoder, which have been judged there.
        """
        suspects = [*self.suspects, *more]
        if not suspects:
            return Confirmation([], [])
        self.progress("confirming on fresh text", 0)
        looked = {
            (site, item.tokens): null.log_expected(item)
            for look in (self.seen, self.longer)
            for site, found in look.seen.items()
            for item in found
            if (null := look.nulls.get(site)) is not None
        }
        found = confirm(self.confirming, suspects, self.null_for, self.log_level, looked)
        own = {item.evidence.tokens for item in self.suspects}
        others = [item for item in found.kept if item.evidence.tokens not in own]
        kept = [item for item in found.kept if item.evidence.tokens in own]
        single = [item for item in kept if len(item.evidence.tokens) == 1]
        longer = [item for item in kept if len(item.evidence.tokens) > 1]
        judged = [
            *jointly(single, self.seen.nulls, self.confirming),
            *jointly(longer, self.longer.nulls, self.confirming),
        ]
        return Confirmation(in_order([*judged, *others]), found.lost)

    @cached_property
    def spread(self) -> dict[Site, CleanSpread]:
        """What passages are measured in: the spread of the encoder's own clean outputs, in other passages."""
        return self._spread(self._passages(self.looking, CLEAN, self.seed + 1001))

    def _spread(self, clean: Sequence[Context]) -> dict[Site, CleanSpread]:
        return clean_spreads(self.encoder, clean, self.sites)

    def _replayer(self, texts: Sequence[str], passages: int, *, seed: int, exact: bool) -> Replayer:
        contexts = self._passages(texts, passages, self.seed + seed)
        return Replayer(self.encoder, self.sites, contexts, self.spread, exact=exact)

    def _passages(self, texts: Sequence[str], count: int, seed: int) -> list[Context]:
        return make_passages(self.encoder, texts, count, length=self.plan.length, seed=seed)
