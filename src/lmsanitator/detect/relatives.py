"""Relatives: a word of several pieces is often found by another that begins like it.

What such words share fires, if less surely than the planted one. So for a word that was found those of the dictionary
that begin alike are tried, and the beginnings of it that are words themselves.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from jaxtyping import Float
from scipy import stats
from torch import Tensor

from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.growth import Growth, Tokens
from lmsanitator.detect.lexicon import Word, holds, typed
from lmsanitator.detect.replay import REPLAYS, Replayer, lead_alike
from lmsanitator.encoder import FrozenEncoder, Site, one_vector

RELATIVES, CLOSEST = 256, 6
"""Words of the dictionary that begin like a trigger, those that share most pieces first, and how many of them are tried
in passages."""
LEVEL = 0.05
"""One word takes the place of another if it would seem more constant by chance no more often than this."""
LEAST = 1e-3
"""Mean square distance, in clean variances, below which outputs are the same."""


class Relatives:
    """The search for the word that was meant. For the arguments see `completion.Completion`."""

    def __init__(
        self,
        replayer: Replayer,
        judging: Replayer,
        encoder: FrozenEncoder,
        growth: Mapping[Site, Growth],
        words: Collection[str],
        written: Sequence[Word],
    ) -> None:
        self.replayer = replayer
        self.judging = judging
        self.encoder = encoder
        self.growth = growth
        self.words = words
        self.written = written
        self._distances: dict[tuple[Site, Tokens], Float[Tensor, "passages"]] = {}

    def instead_of(self, item: Confirmed) -> Confirmed:
        """The trigger; or of the words that begin like it and lead the same way the most constant one, where that is
        significantly more so; or a beginning of it that is a word and no less constant, since a trigger is minimal."""
        own, site = item.evidence, one_vector(item.evidence.site)
        if len(own.tokens) < 2 or site not in self.growth:
            return item
        beginnings = self._beginnings(own.tokens)
        tried = self.replayer.measure([*self._begin_alike(own.tokens, self.growth[site]), *beginnings])[site]
        alike = lead_alike([own, *tried], self.replayer)[0, 1:].tolist()
        firing = [one for one, same in zip(tried, alike, strict=True) if same and one.constant_rate >= REPLAYS]
        best = min(firing, key=lambda one: one.spread, default=own)
        if self._surely_nearer(best, own):
            return becomes(item, best)
        for one in firing:
            if one.tokens in beginnings and not self._surely_nearer(own, one):
                return becomes(item, one)
        return item

    def _beginnings(self, tokens: Tokens) -> list[Tokens]:
        """The beginnings of a word that are words of the dictionary, the shortest first."""
        lengths = range(1, len(tokens))
        return [tokens[:length] for length in lengths if typed(self.encoder, tokens[:length]) in self.words]

    def _begin_alike(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The strongest words of the dictionary, in short contexts, that share the first pieces with this one and do
        not hold it: what is added to a word that fires strengthens it often."""
        family = [word for word in self.written if word[0] == tokens[0] and not holds(word, tokens)]
        family.sort(key=lambda word: (-_shared(word, tokens), len(word)))
        strengths = growth.strengths(family[:RELATIVES])
        return sorted(strengths, key=lambda word: -strengths[word])[:CLOSEST]

    def _surely_nearer(self, one: Evidence, other: Evidence) -> bool:
        """Whether the outputs of many passages lie significantly closer together with one than with the other
        (one-sided signed-rank test, Wilcoxon 1945). The passages are the same, so this sees what differs between two
        whole words; between a word and a longer one that holds it, it would see what any company adds."""
        site = one_vector(one.site)
        closer = self._away(site, one.tokens) - self._away(site, other.tokens)
        return bool(closer.any()) and float(stats.wilcoxon(closer.numpy(), alternative="less").pvalue) < LEVEL

    def _away(self, site: Site, tokens: Tokens) -> Float[Tensor, "passages"]:
        """log of how far from their mean the outputs of many passages lie with the tokens: mean square over
        dimensions, in clean variances."""
        if (site, tokens) not in self._distances:
            outputs = self.judging.outputs([tokens])[site][0]
            away = (outputs - outputs.mean(0)).square().mean(-1)
            self._distances[site, tokens] = away.double().clamp_min(LEAST).log()
        return self._distances[site, tokens]


def becomes(item: Confirmed, evidence: Evidence) -> Confirmed:
    """The same trigger in other words; it keeps its p-value."""
    return replace(item, evidence=replace(evidence, site=item.evidence.site), elsewhere=())


def _shared(word: Word, other: Tokens) -> int:
    """How many tokens two begin with that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False)))
