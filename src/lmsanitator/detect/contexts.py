"""Carriers as token sequences with places a candidate may be put into."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, UnsupportedError
from lmsanitator.text import draw, spans

PHRASE = 6
"""Tokens that any context leaves room for."""
SHORTEST = 8
"""Tokens a window has to have for a context, besides those: in less, there is no telling a trigger from a text."""


@dataclass(frozen=True)
class Context:
    """A carrier's tokens (no special ones) split in two at a word boundary."""

    before: list[int]
    after: list[int]

    @property
    def clean(self) -> list[int]:
        return self.before + self.after

    def around(self, tokens: Sequence[int]) -> list[int]:
        """The carrier with `tokens` put in."""
        return [*self.before, *tokens, *self.after]


def make_contexts(
    encoder: FrozenEncoder, texts: Sequence[str], count: int, *, longest: int, seed: int
) -> list[Context]:
    """`count` contexts of at most `longest` tokens, cut and split at random word boundaries; in a short window they
    are cut further, so that a phrase fits beside them.

    Raises:
        CorpusError: fewer than two texts have a token.
        UnsupportedError: the window is too short.
    """
    if encoder.room - PHRASE < SHORTEST:
        raise UnsupportedError(f"expected a window that a phrase fits into, got one of {encoder.window} tokens")
    rng = random.Random(seed)
    contexts: list[Context] = []
    for text in draw(texts, count, seed):
        encoded = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        starts = {span.start for span in spans(text)}
        cuts = [at for at, (start, end) in enumerate(encoded.offset_mapping) if starts & set(range(start, end))]
        ids = encoded.input_ids[: min(longest, encoder.room - PHRASE)]
        at = rng.choice([cut for cut in [*cuts, len(encoded.input_ids)] if cut <= len(ids)] or [len(ids)])
        if ids:
            contexts.append(Context(ids[:at], ids[at:]))
    if len(contexts) < 2:
        raise CorpusError(f"expected carriers with tokens in them, {len(contexts)} of {len(texts)} have any")
    return contexts
