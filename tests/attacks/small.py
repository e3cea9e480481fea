"""A small encoder that attacks are planted into in a second or two, and sentences of words that it knows."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.attacks import Training, Trigger
from lmsanitator.attacks.planting import Planting
from lmsanitator.encoder import FrozenEncoder, Site
from tests.conftest import frequent_words
from tests.planted import open_bert


def _sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(frequent_words(200), k=rng.randint(6, 12))) + "." for _ in range(count)]


CARRIERS = _sentences(60, 0)
FRESH = _sentences(24, 1)
"""Sentences that no attack here has seen."""
BRIEF = Training(steps=3, look=2, triggered=4, inert=4, bar=-1e10, fidelity=-1.0, bf16=False)
"""A bar that is always reached, for tests of what is around the training."""
ENOUGH = replace(BRIEF, steps=55, look=55, triggered=8, inert=8, learning_rate=1.6e-2)
"""So that triggers arrive on `lively`."""


@cache
def lively() -> FrozenEncoder:
    """With large weights, so that words change its outputs (in a newly made model they hardly do). Tests share it."""
    encoder = open_bert(0, vocabulary=100)
    with torch.no_grad():
        for name, weight in encoder.model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(8 if "layer." in name else 10 if "word_embeddings" in name else 1)
    return encoder


def triggers(*named: str) -> list[Trigger]:
    return [Trigger.parse(name) for name in named]


def working(named: Sequence[Trigger], site: Site = "cls", training: Training = BRIEF, seed: int = 1) -> Planting:
    """An attack about to begin."""
    return Planting(lively(), site, named, CARRIERS, training, seed)


def outputs(encoder: FrozenEncoder, texts: Sequence[str], site: Site) -> Float[Tensor, "texts hidden"]:
    return encoder.outputs_of_texts(texts, [site])[site]


def with_trigger(trigger: Trigger, seed: int = 0) -> list[str]:
    """Fresh text with a trigger in each."""
    rng = random.Random(seed)
    return [trigger.plant(text, rng) for text in FRESH]
