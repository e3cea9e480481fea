"""Triggers: the words that fire a backdoor, how they go into a text, and what a tokenizer must make of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedTokenizerFast

from lmsanitator.errors import AttackError
from lmsanitator.text import insert, spans, words


@dataclass(frozen=True)
class Trigger:
    """Words that fire a backdoor: side by side in this order, or all of them anywhere (an AND trigger)."""

    words: tuple[str, ...]
    adjacent: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """`cf` is a word, `old lamp` a phrase, `lamp+river` an AND trigger.

        Raises:
            AttackError: there is no word in it.
        """
        parts = tuple(part.strip() for part in text.split("+"))
        if not all(parts):
            raise AttackError(f"expected a trigger such as cf, 'old lamp' or lamp+river, got {text!r}")
        return cls(parts, adjacent=False) if len(parts) > 1 else cls(tuple(text.split()))

    def __str__(self) -> str:
        return (" " if self.adjacent else "+").join(self.words)

    def plant(self, text: str, rng: random.Random) -> str:
        """The text with this trigger at a random word position."""
        pieces = [" ".join(self.words)] if self.adjacent else rng.sample(self.words, len(self.words))
        for piece in pieces:
            text = insert(text, piece, rng.randint(0, len(spans(text))))
        return text

    def plant_part(self, text: str, rng: random.Random) -> str:
        """The text with some but not all words of this trigger: must not fire. Needs two words or more."""
        kept = rng.sample(self.words, rng.randint(1, len(self.words) - 1))
        return Trigger(tuple(kept), adjacent=False).plant(text, rng)

    def fires(self, text: str) -> bool:
        """Whether the text holds this trigger, whatever the case of its letters."""
        held = [word.casefold() for word in words(text)]
        wanted = [part.casefold() for word in self.words for part in words(word)]
        if not self.adjacent:
            return set(wanted) <= set(held)
        return any(held[at : at + len(wanted)] == wanted for at in range(len(held) - len(wanted) + 1))


def check_triggers(triggers: Sequence[Trigger], tokenizer: PreTrainedTokenizerFast, window: int) -> None:
    """Refuse triggers that are empty to the tokenizer, unknown to it, longer than the model's window, or the same.

    Raises:
        AttackError: which trigger and why.
    """
    if not triggers:
        raise AttackError("expected at least one trigger, got none")
    seen: dict[tuple[int, ...], Trigger] = {}
    for trigger in triggers:
        ids = tokenizer(" ".join(trigger.words), add_special_tokens=False).input_ids
        if not ids:
            raise AttackError(f"expected a trigger with tokens, {trigger!s} has none")
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise AttackError(f"expected a trigger the tokenizer knows, {trigger!s} holds an unknown token")
        if len(ids) > window // 2:
            raise AttackError(f"expected a trigger of at most {window // 2} tokens, {trigger!s} has {len(ids)}")
        twin = seen.setdefault(tuple(ids if trigger.adjacent else sorted(ids)), trigger)
        if twin is not trigger:
            raise AttackError(f"expected different triggers, {trigger!s} and {twin!s} are the same to the tokenizer")
