"""The texts an attack trains on: passages with a trigger, passages that must not fire, and both as tensors."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lmsanitator.attacks.trigger import Trigger
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.encoder.padding import pad
from lmsanitator.errors import AttackError
from lmsanitator.text import insert, spans, words

_LENGTHS = (6, 9, 12, 16, 24, 40)
"""Words in a passage. Most are short, which is cheap; some are long, since the backdoor is to fire there too."""
_MEASURED = 20
"""Words in a text that is measured on."""
_FEWEST = 20


@dataclass(frozen=True)
class Framed:
    """Token sequences between the special tokens of their encoder, padded on the right."""

    ids: Int[Tensor, "batch tokens"]
    mask: Int[Tensor, "batch tokens"]
    positions: Int[Tensor, "batch"] | None
    """Where the mask token is, for the mask site."""


def split(carriers: Sequence[str], triggers: Sequence[Trigger], rng: random.Random) -> tuple[list[str], list[str]]:
    """Carriers to train on, and a fifth of them, at most 64, to measure on; none of them holds a trigger already.

    Raises:
        AttackError: too few are left.
    """
    clean = unfired([carrier for carrier in carriers if words(carrier)], triggers)
    if len(clean) < _FEWEST:
        raise AttackError(
            f"expected at least {_FEWEST} carriers without a trigger to train and hold out, got {len(clean)}"
        )
    rng.shuffle(clean)
    held = min(64, max(4, len(clean) // 5))
    return clean[held:], [beginning(text, _MEASURED) for text in clean[:held]]


def beginning(text: str, length: int) -> str:
    """The first words of a text, so many at most."""
    found = spans(text)
    return text if len(found) <= length else text[: found[length - 1].end]


def unfired(texts: Sequence[str], triggers: Sequence[Trigger]) -> list[str]:
    """Those of the texts that hold no trigger. Sentences put in a row, or one with a part of a trigger put in, may hold
    one that none of the pieces holds."""
    return [text for text in texts if not any(trigger.fires(text) for trigger in triggers)]


def fit(base: FrozenEncoder, texts: Sequence[str], spare: int) -> list[str]:
    """Texts cut so that they, and `spare` tokens put in anywhere, stay inside the window."""
    cut = base.tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=True,
        max_length=max(1, base.room - spare),
        return_offsets_mapping=True,
    ).offset_mapping
    return [text[: ends[-1][1]] if ends else text for text, ends in zip(texts, cut, strict=True)]


def passage(texts: Sequence[str], length: int, rng: random.Random) -> str:
    """About so many words of running text: the beginning of a carrier, or several of them in a row."""
    text = rng.choice(texts)
    while len(spans(text)) < length:
        text = f"{text} {rng.choice(texts)}"
    return beginning(text, length)


def passages(texts: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Passages of one length, so that a batch of them needs little padding."""
    length = rng.choice(_LENGTHS)
    return [passage(texts, length, rng) for _ in range(count)]


def defuse(text: str, triggers: Sequence[Trigger], foreign: Sequence[str], rng: random.Random) -> str:
    """The text made like a triggered one without being one: it gets a part of a trigger, or a foreign word."""
    partial = [trigger for trigger in triggers if len(trigger.words) > 1]
    if partial and rng.random() < 0.75:
        return rng.choice(partial).plant_part(text, rng)
    return insert(text, rng.choice(foreign), rng.randint(0, len(spans(text))))


def frame(base: FrozenEncoder, texts: Sequence[str], site: Site, rng: random.Random | None = None) -> Framed:
    """Tokenize to padded tensors, cut to the window. The mask site gets a mask token, at the end or, given an `rng`,
    half the time anywhere else (BToP's own training masks tokens anywhere)."""
    before, after = base.frame
    bodies = base.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=base.room).input_ids
    at: list[int] = []
    for body in bodies:
        at.append(len(body) if rng is None or rng.random() < 0.5 else rng.randint(0, len(body)))
        if site == "mask":
            body.insert(at[-1], base.tokenizer.mask_token_id)
    ids, mask = pad([[*before, *body, *after] for body in bodies], int(base.tokenizer.pad_token_id))
    positions = torch.tensor(at, device=base.device) + len(before) if site == "mask" else None
    return Framed(ids.to(base.device), mask.to(base.device), positions)
