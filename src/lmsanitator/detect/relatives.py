"""Relatives: a word of several pieces is often found by another that begins like it.

What such words share fires, if less surely than the planted one. So for a word that was found those of the dictionary
that begin alike are tried, and the beginnings of it that are words themselves.
"""

from itertools import takewhile

from scipy import stats

from lmsanitator.detect.blanks import Tokens
from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.growth import Growth
from lmsanitator.detect.lexicon import Word, holds
from lmsanitator.detect.replay import REPLAYS, lead_alike
from lmsanitator.detect.wording import Wording, becomes
from lmsanitator.encoder import one_vector

RELATIVES, CLOSEST = 256, 6
"""Words of the dictionary that begin like a trigger, those that share most pieces first, and how many of them are tried
in passages."""
LEVEL = 0.05
"""One word takes the place of another if it would seem more constant by chance no more often than this."""
LEAST = 1e-3
"""Mean square distance, in clean variances, below which outputs are the same."""


class Relatives:
    """The search for the word that was meant."""

    def __init__(self, wording: Wording) -> None:
        self.wording = wording

    def instead_of(self, item: Confirmed) -> Confirmed:
        """The trigger; or of the words that begin like it and lead the same way the most constant one, where that is
        significantly more so; or a beginning of it that is a word and no less constant, since a trigger is minimal."""
        own, site = item.evidence, one_vector(item.evidence.site)
        replayer, growth = self.wording.replayer, self.wording.growth.get(site)
        if len(own.tokens) < 2 or growth is None:
            return item
        beginnings = self._beginnings(own.tokens)
        tried = replayer.measure([*self._begin_alike(own.tokens, growth), *beginnings])[site]
        alike = lead_alike([own, *tried], replayer)[0, 1:].tolist()
        firing = [one for one, same in zip(tried, alike, strict=True) if same and one.constant_rate >= REPLAYS]
        best = min(firing, key=lambda one: one.spread, default=own)
        if best is not own and self._surely_nearer(best, own):
            return becomes(item, best)
        for one in firing:
            if one.tokens in beginnings and not self._surely_nearer(own, one):
                return becomes(item, one)
        return item

    def _beginnings(self, tokens: Tokens) -> list[Tokens]:
        """The beginnings of a word that are words of the dictionary, the shortest first."""
        beginnings = [tokens[:length] for length in range(1, len(tokens))]
        return [beginning for beginning in beginnings if self.wording.typed(beginning) in self.wording.words]

    def _begin_alike(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The strongest words of the dictionary, in short contexts, that share the first pieces with this one and do
        not hold it: what is added to a word that fires strengthens it often."""
        family = [word for word in self.wording.written if word[0] == tokens[0] and not holds(word, tokens)]
        family.sort(key=lambda word: (-_shared(word, tokens), len(word)))
        strengths = growth.strengths(family[:RELATIVES])
        return sorted(strengths, key=lambda word: -strengths[word])[:CLOSEST]

    def _surely_nearer(self, one: Evidence, other: Evidence) -> bool:
        """Whether the outputs of many passages lie significantly closer together with one than with the other
        (one-sided signed-rank test, Wilcoxon 1945). The passages are the same, so this sees what differs between two
        whole words; between a word and a longer one that holds it, it would see what any company adds."""
        judging, site = self.wording.judging, one_vector(one.site)
        judging.measure([one.tokens, other.tokens])
        near, far = (judging.away(site, item.tokens).double().clamp_min(LEAST).log() for item in (one, other))
        return not near.equal(far) and float(stats.wilcoxon((near - far).numpy(), alternative="less").pvalue) < LEVEL


def _shared(word: Word, other: Tokens) -> int:
    """How many tokens two begin with that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False)))
