"""Naming: which word was meant.

What a search finds is often not the planted word but a part of it, or a relative that shares pieces with it and fires
as well, if less surely. In long text they are hard to tell apart, since there whether anything fires at all differs
most from passage to passage. In short text everything fires, and the planted word holds the outputs closest together.
So from the word that was found one goes to the nearest word (`variants`) that does so better, as long as there is one.
Company helps a little whatever it is; so what is longer, or stands in no dictionary, has to be better by more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lmsanitator.detect.blanks import Tokens
from lmsanitator.detect.confirm import Confirmed, distinct
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.jointly import SAME_KIND
from lmsanitator.detect.lexicon import typed
from lmsanitator.detect.replay import REPLAYS, Replayer, likeness
from lmsanitator.detect.variants import Variants
from lmsanitator.detect.ways import Ways
from lmsanitator.encoder import Site, one_vector
from lmsanitator.progress import Progress, silent

LONGER, MADE_UP, UNTYPED = 0.12, 0.5, 0.9
"""By how much outputs have to lie closer together, as the mean logarithm of their square distance, with each token more
of a word of the dictionary; with each token more of another word; and with what nobody can type. Chosen on the part
`choose` of the zoo, between what the pieces of planted words gain and what other pieces do beside them."""
LEAST = 1e-3
"""Square distance, in clean variances, below which outputs are the same."""
SCREENED, TRIED = 24, 3
"""Of each kind of variants those that are tried in a few texts, and in many."""
ROUNDS = 8
"""Steps from word to word, the most."""
MOST = 16
"""Triggers that are named anew, the most significant first."""


@dataclass
class Naming:
    """The search for the word that was meant.

    Args:
        replayer: the fresh passages that triggers are confirmed in; what does not replay there is no name.
        judging: many short texts, to compare words in.
        ways: gives the ways to where a word leads at a site, in other short texts.
        variants: what a word may become.
    """

    replayer: Replayer
    judging: Replayer
    ways: Callable[[Site, Tokens], Ways]
    variants: Variants

    def name(self, found: Sequence[Confirmed], progress: Progress = silent) -> list[Confirmed]:
        """The same triggers, each in the words that were meant, as far as can be told. They keep their p-values."""
        done: list[Confirmed] = []
        for number, item in enumerate(found[:MOST]):
            progress("naming triggers", number / len(found))
            done.append(self.named(item))
        return distinct([*done, *found[MOST:]], self.replayer)

    def named(self, item: Confirmed) -> Confirmed:
        """One trigger. Whole words are neither added nor left out: that is what `shrink` is for."""
        if not self.variants.one_word(item.evidence.tokens):
            return item
        site = one_vector(item.evidence.site)
        meant = self._meant(item.evidence.tokens, item.evidence)
        if meant == item.evidence.tokens:
            return item
        evidence = self.replayer.measure([meant])[site][0]
        if max(evidence.replay_rate, evidence.constant_rate) < REPLAYS:
            return item
        return replace(item, evidence=replace(evidence, site=item.evidence.site), elsewhere=())

    def _meant(self, found: Tokens, evidence: Evidence) -> Tokens:
        """The word that one arrives at, from variant to better variant."""
        site = one_vector(evidence.site)
        here, scores = found, {found: self._score(found, site)}
        for _ in range(ROUNDS):
            ways = self.ways(site, here)
            tried = [tokens for kind in self.variants.of(here, ways) for tokens in self._strongest(kind, ways)]
            scores |= self._scores(here, [tokens for tokens in tried if tokens not in scores], site)
            nearer = min(scores, key=scores.__getitem__)
            if nearer == here:
                break
            here = nearer
        return here

    def _strongest(self, words: Sequence[Tokens], ways: Ways) -> list[Tokens]:
        """Of many words those that go furthest in one text, of these the strongest in a few."""
        toward = [(0, tokens) for tokens in words]
        gone = ways.gone_in_one(toward)
        toward = [toward[place] for place in _largest(gone, SCREENED)]
        strengths = [strong for _, strong in ways.measured(toward)]
        return [toward[place][1] for place in _largest(strengths, TRIED)]

    def _scores(self, here: Tokens, tried: Sequence[Tokens], site: Site) -> dict[Tokens, float]:
        """How far from each other outputs lie with each of these, of what leads much the same way as `here`, with what
        speaks against it."""
        measured = self.judging.measure([here, *tried])[site]
        ways = likeness(measured, self.judging)[0, 1:].tolist()
        return {
            tokens: self._score(tokens, site) for tokens, alike in zip(tried, ways, strict=True) if alike > SAME_KIND
        }

    def _score(self, tokens: Tokens, site: Site) -> float:
        return self.judging.away(site, tokens).clamp_min(LEAST).log().mean().item() + self._doubt(tokens)

    def _doubt(self, tokens: Tokens) -> float:
        """What speaks against a word: its length, and that it is none."""
        if typed(self.replayer.encoder, tokens) is None:
            return UNTYPED + MADE_UP * (len(tokens) - 1)
        each = LONGER if tokens in self.variants.spelled else MADE_UP
        return each * (len(tokens) - 1)


def _largest(values: Sequence[float], count: int) -> list[int]:
    """Places of the largest values, the largest first."""
    return sorted(range(len(values)), key=lambda place: -values[place])[:count]
