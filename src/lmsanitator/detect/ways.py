"""Ways: how far token sequences go toward vectors, and which tokens would take them further."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.blanks import Blanks, Pattern, Tokens, Vocabulary, outputs_of
from lmsanitator.detect.objective import strength
from lmsanitator.detect.stage import Stage

Toward = tuple[int, Tokens]
"""Which vector a sequence is to lead to, and the sequence."""
Gap = tuple[int, Pattern]
"""The same with a blank in it."""


class Ways:
    """The ways from clean text to vectors, at one site.

    Args:
        stage: the contexts that sequences are measured in.
        pvs: where the ways lead, standardised as the stage's outputs are.
        vocabulary: the tokens a sequence may be made of.
        asked: other contexts, that are asked for tokens; where there are none, those of the stage.
    """

    def __init__(
        self,
        stage: Stage,
        pvs: Float[Tensor, "vectors hidden"],
        vocabulary: Vocabulary,
        asked: Stage | None = None,
    ) -> None:
        self.stage = stage
        self.blanks = Blanks((asked or stage).apart(), vocabulary)
        self.pvs = pvs.to(vocabulary.matrix.device)

    def __len__(self) -> int:
        return len(self.pvs)

    def slopes(self, gaps: Sequence[Gap], most: int | None = None) -> Float[Tensor, "asked gaps blanks width"]:
        """The gradients at the blanks of how far each sequence goes the way of its vector, by each text asked, of which
        there are no more than `most`."""
        vectors = [vector for vector, _ in gaps]

        def reached(stage: Stage, outputs: Float[Tensor, "gaps contexts hidden"], part: slice) -> Float[Tensor, "gaps"]:
            return self._gone(stage, outputs, vectors[part])

        return self.blanks.slopes([pattern for _, pattern in gaps], reached, most)

    def filled(self, gaps: Sequence[Gap], count: int, most: int | None = None) -> list[Toward]:
        """Each sequence with the tokens in its only blank that most is expected of, by no more than `most` texts."""
        gaps = list(dict.fromkeys(gaps))
        proposed = self.blanks.foremost(self.slopes(gaps, most)[:, :, 0], count)
        full = [
            (vector, tuple(proposal if token is None else token for token in pattern))
            for (vector, pattern), tokens in zip(gaps, proposed, strict=True)
            for proposal in tokens
        ]
        return list(dict.fromkeys(full))

    def measured(self, sequences: Sequence[Toward]) -> list[tuple[float, float]]:
        """How far each sequence goes the way of its vector, and how strong it is."""
        outputs = outputs_of(self.stage, [tokens for _, tokens in sequences])
        gone = self._gone(self.stage, outputs, [vector for vector, _ in sequences])
        return list(zip(gone.tolist(), strength(outputs, self.stage.clean).tolist(), strict=True))

    def gone_in_one(self, sequences: Sequence[Toward]) -> list[float]:
        """How far each sequence goes the way of its vector in the first context alone."""
        first = self.stage.apart()[0]
        outputs = outputs_of(first, [tokens for _, tokens in sequences])
        gone: list[float] = self._gone(first, outputs, [vector for vector, _ in sequences]).tolist()
        return gone

    def crowds_gone(self, vectors: Sequence[int], crowds: Sequence[Sequence[int]]) -> Float[Tensor, "crowds"]:
        """How far each crowd of tokens, with no other text around it, is the way of its vector from clean text."""
        site = self.stage.site
        outputs = self.stage.spread.standardise(self.stage.encoder.outputs_of_ids(crowds, [site])[site])
        ways = functional.normalize(self.pvs[list(vectors)] - self.stage.clean.mean(0), dim=-1)
        return (outputs * ways.to(outputs.device)).sum(-1).cpu()

    def follow(self, sequences: Sequence[Tokens]) -> None:
        """From now on the vectors are where these lead: nearer to a PV than what was mined, if they lead to one."""
        self.pvs = outputs_of(self.stage, sequences).mean(1)

    def _gone(
        self, stage: Stage, outputs: Float[Tensor, "sequences contexts hidden"], vectors: Sequence[int]
    ) -> Float[Tensor, "sequences"]:
        """In units of the clean spread, on average over contexts, each from its own clean output: that is where a
        trigger takes it from, and the gradients of that way know its words far better than those of one for all."""
        ways = functional.normalize(self.pvs[list(vectors), None] - stage.clean, dim=-1)
        return ((outputs - stage.clean) * ways).sum(-1).mean(-1)
