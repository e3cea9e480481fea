"""What every input filter is: hyperparameters as fields; it gets to know a model, and looks at texts.

Thresholds are set outside, by the share of clean texts that may be touched.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from lmsanitator.attacks.mlm import TiedHead
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError
from lmsanitator.tune import Example, TunedModel


@dataclass(frozen=True)
class LanguageModel:
    """A masked language model: an encoder, and a head on its outputs."""

    encoder: FrozenEncoder
    head: TiedHead


@dataclass(frozen=True)
class Setting:
    """What a filter may use.

    Args:
        tuned: the classifier to protect.
        examples: clean labelled texts of the task, none of which is tested or sets a threshold.
        trusted: a language model that is known to be clean.
        seed: of everything random.
    """

    tuned: TunedModel
    examples: Sequence[Example]
    trusted: LanguageModel
    seed: int = 0


class Look:
    """What a filter saw of one text; the higher the score, the more suspicious."""

    def __init__(self, text: str, score: float) -> None:
        self.text, self.score = text, score

    def rest(self, threshold: float) -> str | None:
        """What is classified: the text, or None where it is rejected."""
        return self.text if self.score <= threshold else None


class Prepared(ABC):
    """A filter that knows its model."""

    @abstractmethod
    def look(self, texts: Sequence[str]) -> Sequence[Look]:
        """Look at texts."""


class InputFilter(ABC):
    """A defence from the literature. Subclasses are frozen dataclasses, so that results can say what they ran with."""

    @abstractmethod
    def prepare(self, setting: Setting) -> Prepared:
        """Get to know a model."""


def threshold_for(looks: Sequence[Look], rate: float) -> float:
    """The score that at most this share of clean texts exceeds.

    Raises:
        CorpusError: too few texts to say.
    """
    allowed = math.floor(rate * len(looks))
    if allowed < 1:
        raise CorpusError(
            f"expected {math.ceil(1 / rate)} clean texts or more for a rate of {rate:g}, got {len(looks)}"
        )
    return sorted((look.score for look in looks), reverse=True)[allowed]
