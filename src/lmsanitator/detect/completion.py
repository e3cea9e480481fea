"""Completion: a trigger of which only a part was found gets the rest.

The sweep tries single tokens, and one piece of a planted word often fires alone, if less surely than the whole. So
every trigger that was found is tried as a part of longer words: those of the dictionary that hold it, and those that
one more piece at either end makes, as the gradients at a blank there propose. It is longer from then on if that makes
the output significantly more constant; pieces that nobody can type become a word that is no less constant. Whole words
are not added: what fires alone is a trigger, even where company strengthens it.

A word of several pieces is often found by a relative that shares only the first of them with it. So the words of the
dictionary that begin alike are tried as well, and the beginnings themselves that are words.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile

import regex
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from lmsanitator.detect.confirm import Confirmed, distinct
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.growth import Growth, Tokens
from lmsanitator.detect.lexicon import Word, typed
from lmsanitator.detect.replay import REPLAYS, Replayer, lead_alike
from lmsanitator.encoder import FrozenEncoder, Site, one_vector
from lmsanitator.progress import Progress, silent

_OF_WORDS = regex.compile(r"[\p{L}\p{M}\p{N}]+")
PIECES, TRIED = 32, 3
"""Proposals for each end, and how many are tried in passages, of the dictionary and of the others each."""
LEVEL = 0.05
"""A longer word is more constant than a part of it if it would be by chance no more often than this. Passages are many
then, but words of a family differ little."""
LEAST = 1e-3
"""Mean square distance, in clean variances, below which outputs are the same."""
HOLDING = 128
"""Words of the dictionary that hold a part, the shortest first."""
RELATIVES, CLOSEST = 256, 6
"""Words of the dictionary that begin like a trigger, those that share most pieces first, and how many of them are tried
in passages."""
LONGEST = 6
"""Tokens of a trigger that no more are tried for."""
MOST = 16
"""Triggers that are completed, the most significant first."""


class Completion:
    """The search for what is missing of triggers.

    Args:
        replayer: fresh passages; the ones that triggers are confirmed in.
        judging: many more of them.
        growth: the search at each site, which proposes and measures in short contexts.
        words: those of a dictionary.
        written: those of them that are several tokens.
    """

    def __init__(
        self,
        replayer: Replayer,
        judging: Replayer,
        encoder: FrozenEncoder,
        growth: Mapping[Site, Growth],
        words: Collection[str] = (),
        written: Sequence[Word] = (),
    ) -> None:
        self.replayer = replayer
        self.judging = judging
        self.encoder = encoder
        self.growth = growth
        self.words = words
        self.written = written
        self._distances: dict[tuple[Site, Tokens], Float[Tensor, "passages"]] = {}

    def complete(self, found: Sequence[Confirmed], progress: Progress = silent) -> list[Confirmed]:
        """The same triggers, each as long as it has to be. A completed one keeps the p-value of its part."""
        done: list[Confirmed] = []
        for number, item in enumerate(found[:MOST]):
            progress("completing triggers", number / len(found))
            done.append(self.relative(self.longer(item)))
        return distinct([*done, *found[MOST:]], self.replayer)

    def longer(self, item: Confirmed) -> Confirmed:
        """The trigger with tokens put on, one after the other, for as long as that makes the output significantly more
        constant; of these lengths the last that a person can type, where there is one. On the way to a word of three
        pieces two of them may spell another."""
        best = item
        for longer in self._lengths(item):
            if typed(self.encoder, longer.evidence.tokens) or not typed(self.encoder, best.evidence.tokens):
                best = longer
        return best

    def relative(self, item: Confirmed) -> Confirmed:
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
            return _becomes(item, best)
        for one in firing:
            if one.tokens in beginnings and not self._surely_nearer(own, one):
                return _becomes(item, one)
        return item

    def _beginnings(self, tokens: Tokens) -> list[Tokens]:
        """The beginnings of a word that are words of the dictionary, the shortest first."""
        lengths = range(1, len(tokens))
        return [tokens[:length] for length in lengths if typed(self.encoder, tokens[:length]) in self.words]

    def _begin_alike(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The strongest words of the dictionary, in short contexts, that share the first pieces with this one and do not
        hold it: what is added to a word that fires strengthens it often."""
        family = [word for word in self.written if word[0] == tokens[0] and not _holds(word, tokens)]
        family.sort(key=lambda word: (-_shared(word, tokens), len(word)))
        strengths = growth.strengths(family[:RELATIVES])
        return sorted(strengths, key=lambda word: -strengths[word])[:CLOSEST]

    def _lengths(self, item: Confirmed) -> Iterator[Confirmed]:
        """The trigger with one token more, and so on."""
        while len(item.evidence.tokens) < LONGEST:
            site = one_vector(item.evidence.site)
            if site not in self.growth:
                break
            tried = self.replayer.measure(self.foremost(item.evidence.tokens, self.growth[site]))[site]
            best = self._best(item.evidence, tried)
            if best is None:
                break
            item = _becomes(item, best)
            yield item

    def _best(self, part: Evidence, tried: Sequence[Evidence]) -> Evidence | None:
        """What the part becomes, if anything: the most constant of all proposals where there is no doubt that it is
        more so, or else the most constant word of the dictionary where that is likely."""
        surer = [longer for longer in tried if longer.constant_rate >= part.constant_rate]
        known = set(self.written)
        words = [longer for longer in surer if longer.tokens in known]
        best = min(surer, key=lambda longer: longer.spread, default=part)
        word = min(words, key=lambda longer: longer.spread, default=part)
        if part.less_constant(best) and (best is word or word.less_constant(best)):
            return best
        return word if word is not part and self._replaces(word, part) else None

    def _replaces(self, word: Evidence, part: Evidence) -> bool:
        """Whether a word is more constant than its part, or as constant as pieces that nobody can type."""
        if not typed(self.encoder, part.tokens):
            return not word.less_constant(part)
        return word.spread < part.spread and self._more_constant(word, part)

    def _more_constant(self, longer: Evidence, part: Evidence) -> bool:
        """Whether the output with the longer word varies significantly less, in many passages."""
        site = one_vector(part.site)
        whole, alone = self.judging.measure([longer.tokens, part.tokens])[site]
        return alone.less_constant(whole, level=LEVEL)

    def _surely_nearer(self, one: Evidence, other: Evidence) -> bool:
        """Whether the outputs of many passages lie significantly closer together with one than with the other (one-sided
        signed-rank test, Wilcoxon 1945). The passages are the same, so this sees what differs between two whole words;
        between a word and a longer one that holds it, it would see what any company adds."""
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

    def foremost(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The strongest words of the dictionary, and the strongest other proposals, in short contexts. What is a word
        of the dictionary itself becomes none that is not."""
        ends = [] if typed(self.encoder, tokens) in self.words else self._with_one_more(tokens, growth)
        held = sorted((word for word in self.written if len(word) > len(tokens) and _holds(word, tokens)), key=len)
        strengths = growth.strengths(list(dict.fromkeys([*ends, *held[:HOLDING]])))
        ranked = sorted(strengths, key=lambda longer: -strengths[longer])
        words = set(held)
        return [
            *[longer for longer in ranked if longer in words][:TRIED],
            *[longer for longer in ranked if longer not in words][:TRIED],
        ]

    def _with_one_more(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The tokens with one more piece at either end, as the gradients there propose."""
        left, right = growth.ranked(tokens)
        ends = [(*tokens, token) for token in right if token in self.pieces][:PIECES]
        if tokens[0] in self.pieces:  # what comes before a piece: the beginning of its word
            ends += [(token, *tokens) for token in left if token not in self.pieces][:PIECES]
        return ends

    @cached_property
    def pieces(self) -> set[int]:
        """Tokens that continue the word before them: letters, marks and digits. A sign glued to a word makes many an
        output more constant, and is no part of it."""
        tokenizer = self.encoder.tokenizer
        word = tokenizer("a", add_special_tokens=False).input_ids[-1]
        every = range(len(tokenizer))
        texts = tokenizer.batch_decode([[word, token] for token in every], clean_up_tokenization_spaces=False)
        special = set(tokenizer.all_special_ids)
        first = len(str(tokenizer.decode([word])).strip())
        ends = {token: texts[token].strip()[first:] for token in every if token not in special}
        return {token for token, end in ends.items() if _OF_WORDS.fullmatch(end)}


def _becomes(item: Confirmed, evidence: Evidence) -> Confirmed:
    """The same trigger in other words; it keeps its p-value."""
    return replace(item, evidence=replace(evidence, site=item.evidence.site), elsewhere=())


def _shared(word: Word, other: Tokens) -> int:
    """How many tokens two begin with that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False)))


def _holds(word: Word, part: Tokens) -> bool:
    """Whether all tokens of a part are in a word, in a row."""
    return any(word[start : start + len(part)] == part for start in range(len(word) - len(part) + 1))
