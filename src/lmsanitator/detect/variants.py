"""Variants: what a word may become when one piece of it is another, is missing, or is added."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations

import regex

from lmsanitator.detect.blanks import Pattern, Tokens
from lmsanitator.detect.lexicon import Word, spelled
from lmsanitator.detect.ways import Ways
from lmsanitator.encoder import FrozenEncoder, behind_a_word, roles

_OF_WORDS = regex.compile(r"[\p{L}\p{M}\p{N}]+")
ADDED, ADDED_TO_SEVERAL, EXCHANGED = 64, 320, 64
"""Pieces that the gradients propose for an end of a word of one piece, for one of several, which is seldom whole, and
for each place in a word."""
RELATED = 80
"""Words of the dictionary that share pieces with a word, and as many terms."""
SHORTEST = 3
"""Letters of a piece that terms are looked up by: most terms hold any shorter one somewhere."""
LONGEST = 6
"""Tokens of a word."""


class Variants:
    """Words near a word.

    Args:
        spelled: words of the dictionary that are several tokens.
        terms: words that are in no dictionary, and in use all the same.
    """

    def __init__(self, encoder: FrozenEncoder, spelled: Sequence[Word], terms: Sequence[str] = ()) -> None:
        self.encoder = encoder
        self.spelled = dict.fromkeys(spelled)
        self.terms = dict.fromkeys(terms)
        self._terms_with: dict[int, list[Word]] = {}

    def one_word(self, tokens: Tokens) -> bool:
        """Whether tokens are one word, or pieces of one."""
        return all(token in self.pieces for token in tokens[1:])

    def of(self, tokens: Tokens, ways: Ways) -> list[list[Tokens]]:
        """Variants by kind: parts of the word, words of the dictionary, terms, what one piece more makes of it, and
        what another piece in one place does.

        Args:
            ways: to where the word leads; their gradients propose pieces.
        """
        behind = self._ranked((*tokens, None), ways)
        before = self._ranked((None, *tokens), ways) if tokens[0] in self.pieces else []
        kinds = [
            self.parts(tokens),
            self.related(tokens, before or behind),
            self.related_terms(tokens, before or behind),
            self.longer(tokens, before, behind),
            self.exchanged(tokens, ways),
        ]
        return [kind for kind in kinds if kind]

    def parts(self, tokens: Tokens) -> list[Tokens]:
        """What is left when pieces are missing, any of them."""
        kept = (combinations(tokens, count) for count in range(1, len(tokens)))
        return list(dict.fromkeys(part for parts in kept for part in parts))

    def related(self, tokens: Tokens, ranked: Sequence[int] = ()) -> list[Tokens]:
        """Words of the dictionary that share pieces with this one, the rarer and the more of them the sooner; of those
        that share as much the ones whose other pieces more is expected of.

        Args:
            ranked: tokens to put beside this word, the ones that most is expected of first.
        """
        return _related(tokens, {token: self._holding.get(token, []) for token in tokens}, ranked)

    def related_terms(self, tokens: Tokens, ranked: Sequence[int] = ()) -> list[Tokens]:
        """Terms that do, as `related`. They are spelled as they are needed: there are too many to spell all of them."""
        return _related(tokens, {token: self._terms_holding(token) for token in tokens}, ranked)

    def longer(self, tokens: Tokens, before: Sequence[int], behind: Sequence[int]) -> list[Tokens]:
        """With a piece put on behind, or anything before what is itself no beginning of a word.

        Args:
            before: tokens to put before it, the ones that most is expected of first; none where nothing belongs there.
            behind: the same for behind it.
        """
        if len(tokens) >= LONGEST:
            return []
        count = ADDED if len(tokens) == 1 else ADDED_TO_SEVERAL
        ended = list(self._first(((*tokens, token) for token in behind), count))
        return ended + list(self._first(((token, *tokens) for token in before), count))

    def exchanged(self, tokens: Tokens, ways: Ways) -> list[Tokens]:
        """With one piece of several exchanged for another, or one put between two."""
        if len(tokens) < 2:
            return []
        places = range(len(tokens))
        gaps: list[Pattern] = [(*tokens[:place], None, *tokens[place + 1 :]) for place in places]
        if len(tokens) < LONGEST:
            gaps += [(*tokens[:place], None, *tokens[place:]) for place in places[1:]]
        filled = [word for gap in gaps for word in self._filled(gap, ways, EXCHANGED)]
        return [word for word in dict.fromkeys(filled) if word != tokens]

    def _filled(self, gap: Pattern, ways: Ways, count: int) -> list[Tokens]:
        """A word with its blank filled by what most is expected of, of what may stand there."""
        filled = (tuple(token if old is None else old for old in gap) for token in self._ranked(gap, ways))
        return list(self._first(filled, count))

    def _ranked(self, gap: Pattern, ways: Ways) -> list[int]:
        """All tokens, the ones that most is expected of in the blank of a word first."""
        (ranked,) = ways.blanks.foremost(ways.slopes([(0, gap)])[:, :, 0], len(ways.blanks.vocabulary.tokens))
        return ranked

    def _first(self, words: Iterator[Tokens], count: int) -> Iterator[Tokens]:
        for word in words:
            if count and self.one_word(word):
                count -= 1
                yield word

    @cached_property
    def _holding(self) -> dict[int, list[Word]]:
        """By token, the words of the dictionary it is in."""
        holding: dict[int, list[Word]] = defaultdict(list)
        for word in self.spelled:
            for token in set(word):
                holding[token].append(word)
        return holding

    def _terms_holding(self, token: int) -> list[Word]:
        """The terms that a token is in."""
        if token not in self._terms_with:
            piece = self._behind[token].strip()
            written = [term for term in self.terms if piece in term] if len(piece) >= SHORTEST else []
            self._terms_with[token] = [word for word in spelled(self.encoder, written) if token in word]
        return self._terms_with[token]

    @cached_property
    def _behind(self) -> list[str]:
        """Every token as it reads behind a word: with a space before it, or glued to it."""
        texts, length = behind_a_word(self.encoder.tokenizer)
        return [text.rstrip()[length:] for text in texts]

    @cached_property
    def pieces(self) -> set[int]:
        """Tokens that continue the word before them: letters, marks and digits. A sign glued to a word makes many an
        output more constant, and is no part of it."""
        special = roles(self.encoder.tokenizer)
        return {token for token, text in enumerate(self._behind) if token not in special and _OF_WORDS.fullmatch(text)}


def _related(tokens: Tokens, holding: Mapping[int, Sequence[Word]], ranked: Sequence[int]) -> list[Tokens]:
    """Of words that hold one of the tokens of a word those that are nearest to it.

    Args:
        holding: by token, the words it is in.
        ranked: tokens to put beside the word, the ones that most is expected of first.
    """
    rank = {token: place for place, token in enumerate(ranked, 1)}
    own = set(tokens)

    def expected(word: Word) -> float:
        """Mean logarithm of the places of its other pieces."""
        others = [math.log(rank.get(token, len(rank) + 1)) for token in word if token not in own]
        return sum(others) / max(1, len(others))

    shared: dict[Word, float] = defaultdict(float)
    for words in holding.values():
        for word in words:
            shared[word] += 1 / len(words)
    shared.pop(tokens, None)
    return sorted(shared, key=lambda word: (-shared[word], expected(word), len(word), word))[:RELATED]
