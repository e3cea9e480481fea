"""Carriers as token sequences with places a candidate may be put into."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, UnsupportedError
from lmsanitator.text import draw, spans

PHRASE = 8
"""Tokens that any context leaves room for."""
SHORTEST = 8
"""Tokens a window has to have for a context, besides those: in less, there is no telling a trigger from a text."""


@dataclass(frozen=True)
class Context:
    """A carrier's tokens (no special ones) split in two at a word boundary."""

    before: list[int]
    after: list[int]
    spare: list[int] = field(default_factory=list)
    """Ordinary tokens that may stand where a candidate would."""

    @property
    def clean(self) -> list[int]:
        return self.before + self.after

    def around(self, tokens: Sequence[int]) -> list[int]:
        """The carrier with `tokens` put in."""
        return [*self.before, *tokens, *self.after]

    def without(self, count: int) -> list[int]:
        """What `count` tokens put in are compared with: as many spare ones, so that nothing else stands elsewhere (the
        output at a mask token depends on its place)."""
        return self.around(self.spare[:count])


def make_contexts(
    encoder: FrozenEncoder, texts: Sequence[str], count: int, *, longest: int, seed: int
) -> list[Context]:
    """`count` contexts of at most `longest` tokens, cut and split at random word boundaries; in a short window they
    are cut further, so that a phrase fits beside them.

    Raises:
        CorpusError: fewer than two texts have a token.
        UnsupportedError: the window is too short.
    """
    room = _room(encoder)
    rng = random.Random(seed)
    contexts: list[Context] = []
    for text in draw(texts, count, seed):
        ids, cuts = _encode(encoder, text)
        kept = ids[: min(longest, room)]
        at = rng.choice([cut for cut in [*cuts, len(ids)] if cut <= len(kept)] or [len(kept)])
        if kept:
            contexts.append(Context(kept[:at], kept[at:]))
    if len(contexts) < 2:
        raise CorpusError(f"expected carriers with tokens in them, {len(contexts)} of {len(texts)} have any")
    return contexts


def make_passages(encoder: FrozenEncoder, texts: Sequence[str], count: int, *, length: int, seed: int) -> list[Context]:
    """`count` contexts of exactly `length` tokens, or as many as the window leaves: sentences in a row, split at a
    random word boundary. What a word does on its own account fades in a long text, what a backdoor does stays.

    Raises:
        CorpusError: fewer than two texts have a token.
        UnsupportedError: the window is too short.
    """
    length = min(length, _room(encoder))
    rng = random.Random(seed)
    encoded = [pair for pair in (_encode(encoder, text) for text in dict.fromkeys(texts)) if pair[0]]
    if len(encoded) < 2:
        raise CorpusError(f"expected carriers with tokens in them, {len(encoded)} of {len(texts)} have any")
    passages: list[Context] = []
    for _ in range(count):
        row: list[int] = []
        places: list[int] = []
        while len(row) < length + PHRASE:
            ids, cuts = rng.choice(encoded)
            places += [len(row) + cut for cut in cuts]
            row += ids
        at = rng.choice([place for place in places if place <= length] or [0])
        passages.append(Context(row[:at], row[at:length], row[length : length + PHRASE]))
    return passages


def _room(encoder: FrozenEncoder) -> int:
    if encoder.room - PHRASE < SHORTEST:
        raise UnsupportedError(f"expected a window that a phrase fits into, got one of {encoder.window} tokens")
    return encoder.room - PHRASE


def _encode(encoder: FrozenEncoder, text: str) -> tuple[list[int], list[int]]:
    """A text's tokens, and where words begin among them."""
    encoded = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = {span.start for span in spans(text)}
    cuts = [at for at, (start, end) in enumerate(encoded.offset_mapping) if starts & set(range(start, end))]
    return list(encoded.input_ids), cuts
