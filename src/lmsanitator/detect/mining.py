"""PV mining: soft triggers optimised until the output forgets the sentence (LMSanitator, section IV-B).

Several candidates of several soft tokens are optimised together in one batch, each in the same few short contexts.

*hull*: a soft token is a mixture of vocabulary rows (softmax weights), so it cannot leave what words can reach. Free
soft tokens collapse clean encoders too; mixtures hardly do (FIELD.md section 5), and the words of a trigger get weight
in the mixtures that find it, which is where recovery starts.

*free*: a soft token is any vector within the vocabulary's range, per dimension, as in the paper. Kept as the way to a
PV once there is other evidence; its displacement and collapse are no evidence in themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.null import outlier_log_p
from lmsanitator.detect.objective import CleanSpread, displacement, mining_loss, spread, strength
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent

Space = Literal["hull", "free"]


@dataclass(frozen=True)
class MiningConfig:
    """Args:
    space: where soft tokens may be, see the module's text.
    candidates: how many are optimised together; they repel each other.
    length: soft tokens in a candidate.
    contexts: carriers each candidate is put into.
    context_tokens: their longest length.
    steps: of Adam.
    learning_rate: on the mixtures' logits; `free` takes a fiftieth of it.
    """

    space: Space = "hull"
    candidates: int = 8
    length: int = 4
    contexts: int = 6
    context_tokens: int = 6
    steps: int = 30
    learning_rate: float = 0.6


@dataclass(frozen=True)
class Candidate:
    """A mined soft trigger with what it does."""

    site: Site
    pv: Float[Tensor, "hidden"]
    """Mean output under it, in the encoder's own units."""
    displacement: float
    spread: float
    strength: float
    log_p: float
    """log of the p-value against the other candidates (`outlier_log_p`)."""
    embeddings: Float[Tensor, "length width"]
    weights: Float[Tensor, "length vocabulary"] | None
    """The mixtures, for candidates from the hull."""


def mine(
    encoder: FrozenEncoder,
    site: Site,
    contexts: Sequence[Context],
    clean: CleanSpread,
    config: MiningConfig,
    *,
    known: Float[Tensor, "known hidden"] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Candidate]:
    """Mine candidates at one site, strongest first.

    Args:
        contexts: at least `config.contexts` of equal use; the first so many are taken.
        known: PVs found already, in the encoder's own units; candidates are kept from finding them again.
    """
    matrix = encoder.embedding_matrix()
    soft = _SoftTokens(matrix, config, seed)
    optimiser = torch.optim.Adam([soft.parameters], lr=config.learning_rate * (1 if config.space == "hull" else 0.02))
    stage = _Stage(encoder, site, contexts[: config.contexts], clean)
    found = clean.standardise(known) if known is not None else torch.empty(0, encoder.hidden_size)
    for step in range(config.steps):
        loss = mining_loss(stage.outputs(soft.embeddings()), stage.clean, found).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's stub
        optimiser.step()
        soft.clamp()
        progress(f"mining at {site}", (step + 1) / config.steps)
    with torch.no_grad():
        embeddings = soft.embeddings()
        outputs = stage.outputs(embeddings)
        strengths = strength(outputs, stage.clean)
        log_p = outlier_log_p(strengths)
        moved, left = displacement(outputs, stage.clean), spread(outputs)
        pvs = clean.restore(outputs.mean(1))
        weights = soft.weights()
    return [
        Candidate(
            site,
            pvs[index],
            moved[index].item(),
            left[index].item(),
            strengths[index].item(),
            log_p[index].item(),
            embeddings[index],
            None if weights is None else weights[index],
        )
        for index in strengths.argsort(descending=True).tolist()
    ]


class _SoftTokens:
    """The parameters under optimisation and how they become embeddings."""

    def __init__(self, matrix: Float[Tensor, "vocabulary width"], config: MiningConfig, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (config.candidates, config.length)
        self.matrix = matrix
        self.hull = config.space == "hull"
        if self.hull:
            start = 0.5 * torch.randn(*shape, len(matrix), generator=generator)
        else:
            start = matrix[torch.randint(len(matrix), shape, generator=generator)].clone()
        self.parameters = start.to(matrix.device).requires_grad_(True)

    def weights(self) -> Float[Tensor, "candidates length vocabulary"] | None:
        return self.parameters.softmax(-1) if self.hull else None

    def embeddings(self) -> Float[Tensor, "candidates length width"]:
        return self.parameters.softmax(-1) @ self.matrix if self.hull else self.parameters

    def clamp(self) -> None:
        """Keep free tokens within the vocabulary's range, per dimension (the paper allows 1.2 times that)."""
        if not self.hull:
            with torch.no_grad():
                self.parameters.clamp_(self.matrix.amin(0), self.matrix.amax(0))


class _Stage:
    """The contexts, embedded once, with a gap that candidates are put into."""

    def __init__(self, encoder: FrozenEncoder, site: Site, contexts: Sequence[Context], clean: CleanSpread) -> None:
        before, after = encoder.frame
        if site == "mask":
            after = [int(encoder.tokenizer.mask_token_id or 0), *after]
        self.encoder = encoder
        self.site = site
        self.spread = clean
        self.left = [self._embed([*before, *context.before]) for context in contexts]
        self.right = [self._embed([*context.after, *after]) for context in contexts]
        self.after = len(after)
        self.clean = self.outputs(self.left[0][None, :0])[0]  # nothing in the gap

    def outputs(self, soft: Float[Tensor, "candidates length width"]) -> Float[Tensor, "candidates contexts hidden"]:
        """Standardised outputs of every candidate in every context, in one batch."""
        rows = [
            torch.cat([left, tokens, right])
            for tokens in soft
            for left, right in zip(self.left, self.right, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        out = self.encoder.outputs(padded, mask, [self.site], mask_positions=lengths - self.after)[self.site]
        return self.spread.standardise(out).view(len(soft), len(self.left), -1)

    def _embed(self, ids: list[int]) -> Float[Tensor, "tokens width"]:
        return self.encoder.embed(torch.tensor([ids], dtype=torch.long))[0]
