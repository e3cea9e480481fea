"""What every baseline is: hyperparameters as fields, and one method that looks at an encoder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmsanitator.encoder import FrozenEncoder


@dataclass(frozen=True)
class Score:
    """How suspicious a baseline finds an encoder, the higher the more; `details` is what else is worth knowing."""

    value: float
    details: Mapping[str, float | str] = field(default_factory=dict)


class Baseline(ABC):
    """A detector from the literature. Subclasses are frozen dataclasses, so that results can say what they ran with."""

    @abstractmethod
    def score(self, encoder: FrozenEncoder, texts: Sequence[str], *, seed: int = 0) -> Score:
        """Look at an encoder.

        Args:
            texts: clean sentences.
            seed: of everything random in it.

        Raises:
            CorpusError: the texts are too few.
        """
