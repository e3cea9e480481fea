"""Completion: a trigger of which only a part was found gets the rest.

The sweep tries single tokens, and one piece of a planted word often fires alone, if less surely than the whole. So
every trigger that was found is tried as a part of longer words: those of the dictionary that hold it, and those that
one more piece at either end makes, as the gradients at a blank there propose. It is longer from then on if that makes
the output significantly more constant; pieces that nobody can type become a word that is no less constant. Whole words
are not added: what fires alone is a trigger, even where company strengthens it.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import regex

from lmsanitator.detect.blanks import Tokens
from lmsanitator.detect.confirm import Confirmed, distinct
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.growth import Growth
from lmsanitator.detect.lexicon import holds
from lmsanitator.detect.relatives import Relatives
from lmsanitator.detect.wording import Wording, becomes
from lmsanitator.encoder import one_vector
from lmsanitator.progress import Progress, silent

_OF_WORDS = regex.compile(r"[\p{L}\p{M}\p{N}]+")
PIECES, TRIED = 32, 3
"""Proposals for each end, and how many are tried in passages, of the dictionary and of the others each."""
LEVEL = 0.05
"""A longer word is more constant than a part of it if it would be by chance no more often than this. Passages are many
then, but words of a family differ little."""
HOLDING = 128
"""Words of the dictionary that hold a part, the shortest first."""
LONGEST = 6
"""Tokens of a trigger that no more are tried for."""
MOST = 16
"""Triggers that are completed, the most significant first."""


class Completion:
    """The search for what is missing of triggers."""

    def __init__(self, wording: Wording) -> None:
        self.wording = wording
        self.relatives = Relatives(wording)

    def complete(self, found: Sequence[Confirmed], progress: Progress = silent) -> list[Confirmed]:
        """The same triggers, each as long as it has to be. A completed one keeps the p-value of its part."""
        done: list[Confirmed] = []
        for number, item in enumerate(found[:MOST]):
            progress("completing triggers", number / len(found))
            done.append(self.relatives.instead_of(self.longer(item)))
        return distinct([*done, *found[MOST:]], self.wording.replayer)

    def longer(self, item: Confirmed) -> Confirmed:
        """The trigger with tokens put on, one after the other, for as long as that makes the output significantly more
        constant; of these lengths the last that a person can type, where there is one. On the way to a word of three
        pieces two of them may spell another."""
        best = item
        for longer in self._lengths(item):
            if self.wording.typed(longer.evidence.tokens) or not self.wording.typed(best.evidence.tokens):
                best = longer
        return best

    def _lengths(self, item: Confirmed) -> Iterator[Confirmed]:
        """The trigger with one token more, and so on."""
        site = one_vector(item.evidence.site)
        growth = self.wording.growth.get(site)
        while growth is not None and len(item.evidence.tokens) < LONGEST:
            tried = self.wording.replayer.measure(self.foremost(item.evidence.tokens, growth))[site]
            best = self._best(item.evidence, tried)
            if best is None:
                break
            item = becomes(item, best)
            yield item

    def _best(self, part: Evidence, tried: Sequence[Evidence]) -> Evidence | None:
        """What the part becomes, if anything: the most constant of all proposals where there is no doubt that it is
        more so, or else the most constant word of the dictionary where that is likely."""
        surer = [longer for longer in tried if longer.constant_rate >= part.constant_rate]
        known = set(self.wording.written)
        words = [longer for longer in surer if longer.tokens in known]
        best = min(surer, key=lambda longer: longer.spread, default=part)
        word = min(words, key=lambda longer: longer.spread, default=part)
        if part.less_constant(best) and (best is word or word.less_constant(best)):
            return best
        return word if word is not part and self._replaces(word, part) else None

    def _replaces(self, word: Evidence, part: Evidence) -> bool:
        """Whether a word is more constant than its part, or as constant as pieces that nobody can type."""
        if not self.wording.typed(part.tokens):
            return not word.less_constant(part)
        return word.spread < part.spread and self._more_constant(word, part)

    def _more_constant(self, longer: Evidence, part: Evidence) -> bool:
        """Whether the output with the longer word varies significantly less, in many passages."""
        site = one_vector(part.site)
        whole, alone = self.wording.judging.measure([longer.tokens, part.tokens])[site]
        return alone.less_constant(whole, level=LEVEL)

    def foremost(self, tokens: Tokens, growth: Growth) -> list[Tokens]:
        """The strongest words of the dictionary, and the strongest other proposals, in short contexts. What is a word
        of the dictionary itself becomes none that is not."""
        wording = self.wording
        ends = [] if wording.typed(tokens) in wording.words else self._with_one_more(tokens, growth)
        held = sorted((word for word in wording.written if len(word) > len(tokens) and holds(word, tokens)), key=len)
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
        tokenizer = self.wording.encoder.tokenizer
        word = tokenizer("a", add_special_tokens=False).input_ids[-1]
        every = range(len(tokenizer))
        texts = tokenizer.batch_decode([[word, token] for token in every], clean_up_tokenization_spaces=False)
        special = set(tokenizer.all_special_ids)
        first = len(str(tokenizer.decode([word])).strip())
        ends = {token: texts[token].strip()[first:] for token in every if token not in special}
        return {token for token, end in ends.items() if _OF_WORDS.fullmatch(end)}
