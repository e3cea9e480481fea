"""Growth: what could stand before or behind a trigger that was found, as a part of it."""

import random
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.blanks import Blanks, Tokens, outputs_of
from lmsanitator.detect.contexts import Context
from lmsanitator.detect.objective import CONSTANCY, CleanSpread, strength
from lmsanitator.detect.stage import Stage
from lmsanitator.encoder import FrozenEncoder, Site

_COMPANY = 5
"""Random tokens on either side of what is to be longer."""


class Growth:
    """What proposes longer sequences at one site, and measures them.

    Args:
        contexts: natural text that sequences are measured in.
        allowed: the tokens that are proposed.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        site: Site,
        contexts: Sequence[Context],
        clean: CleanSpread,
        allowed: Sequence[int],
        seed: int = 0,
    ) -> None:
        rng = random.Random(seed)
        company = [Context(*(rng.choices(allowed, k=_COMPANY) for _ in range(2))) for _ in contexts]
        self.natural = Stage(encoder, contexts, site, clean)
        self.random = Blanks([Stage(encoder, company, site, clean)], allowed)

    def ranked(self, tokens: Tokens) -> tuple[list[int], list[int]]:
        """All tokens, by what the gradients of strength at a blank before and a blank after a sequence expect of them.

        Among random tokens: there a planted piece ranks higher than in natural text, whose own effect is stronger.
        """

        def reached(
            stage: Stage, outputs: Float[Tensor, "patterns contexts hidden"], _: slice
        ) -> Float[Tensor, "patterns"]:
            return strength(outputs, stage.clean, constancy=CONSTANCY)

        slopes = self.random.slopes([(None, *tokens, None)], reached)[:, 0]
        left, right = self.random.foremost(slopes, len(self.random.vocabulary))
        return left, right

    def strengths(self, sequences: Sequence[Tokens]) -> dict[Tokens, float]:
        """The strength of each sequence in natural contexts."""
        if not sequences:
            return {}
        reached = strength(outputs_of(self.natural, sequences), self.natural.clean)
        return dict(zip(sequences, reached.tolist(), strict=True))
