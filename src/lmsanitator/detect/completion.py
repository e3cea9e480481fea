"""Completion: a trigger of which only a part was found gets the rest.

The sweep tries single tokens, and one piece of a planted word often fires alone, if less surely than the whole. So
every trigger that was found is tried with one more piece at either end that makes it a longer word, of those that the
gradients at a blank there propose. It is longer from then on if that makes the output significantly more constant.
Whole words are not added: what fires alone is a trigger, even where company strengthens it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import regex

from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.facts import typed
from lmsanitator.detect.growth import Growth, Tokens
from lmsanitator.detect.replay import Replayer
from lmsanitator.encoder import FrozenEncoder, Site, one_vector
from lmsanitator.progress import Progress, silent

_OF_WORDS = regex.compile(r"[\p{L}\p{M}\p{N}]+")
PIECES, TRIED = 32, 4
"""Proposals for each end, and those of both that are tried in passages."""
LONGEST = 6
"""Tokens of a trigger that no more are tried for."""
MOST = 16
"""Triggers that are completed, the most significant first."""


class Completion:
    """The search for what is missing of triggers.

    Args:
        replayer: fresh passages; the ones that triggers are confirmed in.
        growth: the search at each site, which proposes and measures in short contexts.
    """

    def __init__(self, replayer: Replayer, encoder: FrozenEncoder, growth: Mapping[Site, Growth]) -> None:
        self.replayer = replayer
        self.encoder = encoder
        self.growth = growth

    def complete(self, found: Sequence[Confirmed], progress: Progress = silent) -> list[Confirmed]:
        """The same triggers, each as long as it has to be. A completed one keeps the p-value of its part."""
        done: list[Confirmed] = []
        for number, item in enumerate(found[:MOST]):
            progress("completing triggers", number / len(found))
            done.append(self.longer(item))
        return _distinct([*done, *found[MOST:]])

    def longer(self, item: Confirmed) -> Confirmed:
        """The trigger with tokens put on, one after the other, for as long as that makes the output significantly more
        constant; of these lengths the last that a person can type, where there is one. On the way to a word of three
        pieces two of them may spell another."""
        best = item
        for longer in self._lengths(item):
            if typed(self.encoder, longer.evidence.tokens) or not typed(self.encoder, best.evidence.tokens):
                best = longer
        return best

    def _lengths(self, item: Confirmed) -> Iterator[Confirmed]:
        """The trigger with one token more, and so on."""
        while len(item.evidence.tokens) < LONGEST:
            site = one_vector(item.evidence.site)
            if site not in self.growth:
                break
            tried = self.replayer.measure(self.foremost(item.evidence.tokens, self.growth[site]))[site]
            best = min(tried, key=lambda evidence: evidence.spread, default=item.evidence)  # no pieces, nothing to try
            if not item.evidence.less_constant(best) or best.constant_rate < item.evidence.constant_rate:
                break
            item = replace(item, evidence=replace(best, site=item.evidence.site), elsewhere=())
            yield item

    def foremost(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The strongest of the proposals in short contexts."""
        left, right = growth.ranked(tokens)
        ends: list[Tokens] = []
        if tokens[0] in self.pieces:  # what comes before a piece: the beginning of its word
            ends += [(token, *tokens) for token in left if token not in self.pieces][:PIECES]
        ends += [(*tokens, token) for token in right if token in self.pieces][:PIECES]
        strengths = growth.strengths(ends)
        return sorted(strengths, key=lambda longer: -strengths[longer])[:TRIED]

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


def _distinct(found: Sequence[Confirmed]) -> list[Confirmed]:
    """Each set of tokens once: two pieces may have become the same word."""
    best: dict[frozenset[int], Confirmed] = {}
    for item in found:
        best.setdefault(frozenset(item.evidence.tokens), item)
    return list(best.values())
