"""Blanks: what the gradient at a blank token expects of every token in its place.

The step from a blank, the mean embedding, to a token is HotFlip's first-order estimate (Ebrahimi et al. 2018, arXiv
1712.06751). It is only good for proposals; what it proposes is measured. What is expected of a token differs much from
text to text: near where a trigger fires its words come first, elsewhere they are hundreds of places behind. So each
context is asked on its own, and the one that a token stands out most in counts.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.stage import Stage
from lmsanitator.encoder import FrozenEncoder, side_by_side

Tokens = tuple[int, ...]
Pattern = tuple[int | None, ...]
"""Tokens, and blanks (None) among them."""
Reached = Callable[[Stage, Float[Tensor, "patterns contexts hidden"], slice], Float[Tensor, "patterns"]]
"""How far some of the patterns get on a stage, given their outputs and which of all patterns they are."""
_BATCH = 96
"""Sequences that pass the encoder together."""
_EXPECTED = 12_000_000
"""Numbers that are held at once where blanks are asked about the whole vocabulary: going through it costs more than
asking, so it is done for many blanks at a time."""


class Vocabulary:
    """The tokens that a blank may become, by their embeddings.

    Args:
        allowed: their ids.
        common: those of them that natural text is full of, the commonest first. Gradients hardly ever point at these.
    """

    def __init__(self, encoder: FrozenEncoder, allowed: Sequence[int], common: Sequence[int] = ()) -> None:
        self.common = list(common)
        self.matrix = encoder.embedding_matrix
        self.blank = self.matrix.mean(0)
        self.tokens = torch.tensor(list(allowed), device=self.matrix.device)
        self.rows = self.matrix[self.tokens] - self.blank
        self.covariance = torch.cov(self.rows.T)


class Blanks:
    """Sequences with blanks in them, at one site.

    Args:
        stages: contexts that sequences are put into; those of one stage are asked together.
        vocabulary: what a blank may become.
    """

    def __init__(self, stages: Sequence[Stage], vocabulary: Vocabulary) -> None:
        self.stages = list(stages)
        self.vocabulary = vocabulary

    def slopes(
        self, patterns: Sequence[Pattern], reached: Reached, most: int | None = None
    ) -> Float[Tensor, "stages patterns blanks width"]:
        """The gradients at the blanks of how far each pattern gets, on `most` stages. All have as many blanks."""
        found = side_by_side(
            lambda stage: self._slopes_on(stage, patterns, reached), self.stages[:most], self.vocabulary.matrix.device
        )
        return torch.stack(found)

    def _slopes_on(
        self, stage: Stage, patterns: Sequence[Pattern], reached: Reached
    ) -> Float[Tensor, "patterns blanks width"]:
        count = patterns[0].count(None)
        found: list[Tensor] = []
        for start in range(0, len(patterns), _BATCH):
            part = patterns[start : start + _BATCH]
            blanks = self.vocabulary.blank.repeat(len(part), count, 1).requires_grad_(True)
            outputs = stage.outputs([self._filled(*pair) for pair in zip(part, blanks, strict=True)])
            total = reached(stage, outputs, slice(start, start + len(part))).sum()
            found.append(torch.autograd.grad(total, blanks)[0])
        return torch.cat(found)

    def foremost(self, slopes: Float[Tensor, "stages blanks width"], count: int) -> list[list[int]]:
        """For each blank the tokens that most is expected of, beside what the same text expects of others, the foremost
        first."""
        tokens, rows = self.vocabulary.tokens, self.vocabulary.rows
        variance = ((slopes @ self.vocabulary.covariance) * slopes).sum(-1, keepdim=True)  # of what all tokens promise
        slopes = slopes / variance.clamp_min(1e-24).sqrt()
        found: list[list[int]] = []
        for part in torch.split(slopes, max(1, _EXPECTED // (len(slopes) * len(rows))), dim=1):
            surprise = (part @ rows.T).amax(0)
            found += tokens[surprise.topk(min(count, len(rows))).indices].tolist()
        return found

    def _filled(self, pattern: Pattern, blanks: Float[Tensor, "blanks width"]) -> Float[Tensor, "pattern width"]:
        rows = iter(blanks)
        return torch.stack([next(rows) if token is None else self.vocabulary.matrix[token] for token in pattern])


def outputs_of(stage: Stage, sequences: Sequence[Tokens]) -> Float[Tensor, "sequences contexts hidden"]:
    """Standardised outputs of token sequences, none of which has a blank."""
    matrix = stage.encoder.embedding_matrix

    def outputs(part: Sequence[Tokens]) -> Tensor:
        with torch.no_grad():
            return stage.outputs([matrix[list(tokens)] for tokens in part])

    parts = [sequences[start : start + _BATCH] for start in range(0, len(sequences), _BATCH)]
    return torch.cat(side_by_side(outputs, parts, stage.encoder.device))
