"""STRIP: mix an input with clean texts; if the label hardly minds, a trigger decides it.

After Gao et al., "Design and Evaluation of a Multi-Domain Trojan Detection Method on Deep Neural Networks" (STRIP-ViTA,
arXiv 1911.10312), section 3: copies of the input in which a share of the words is replaced by words of clean texts are
classified; a low mean entropy of the predictions says that the label hangs on something that survives the mixing. What
is flagged is rejected.

Published: 100 copies, the words that take part chosen by their TF-IDF, the share set for each data set.

Differences: ten copies, as many as an online service could afford, the words chosen at random, half of them replaced.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.defence.filters.interface import InputFilter, Look, Prepared, Setting
from lmsanitator.text import words
from lmsanitator.tune import predict


@dataclass(frozen=True)
class Strip(InputFilter):
    """Args:
    copies: perturbed copies of each input.
    share: of the words, replaced.
    """

    copies: int = 10
    share: float = 0.5

    def prepare(self, setting: Setting) -> Prepared:
        return _Mixing(self, setting)


class _Mixing(Prepared):
    def __init__(self, config: Strip, setting: Setting) -> None:
        self.config, self.setting = config, setting
        self.pool = [found for example in setting.examples if (found := words(example.text))]

    def look(self, texts: Sequence[str]) -> list[Look]:
        rng = random.Random(self.setting.seed)
        mixed = [
            mix(text, rng.choice(self.pool), self.config.share, rng)
            for text in texts
            for _ in range(self.config.copies)
        ]
        shares = predict(self.setting.tuned.model, self.setting.tuned.tokenizer, mixed).softmax(-1)
        entropy = torch.special.entr(shares).sum(1).view(len(texts), self.config.copies).mean(1)
        return [Look(text, -value) for text, value in zip(texts, entropy.tolist(), strict=True)]


def mix(text: str, others: Sequence[str], share: float, rng: random.Random) -> str:
    """A text with a share of its words replaced by some of `others`."""
    found = words(text)
    for at in rng.sample(range(len(found)), round(share * len(found))):
        found[at] = rng.choice(others)
    return " ".join(found)
