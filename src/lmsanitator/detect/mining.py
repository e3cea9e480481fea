"""PV mining: soft triggers optimised until the output forgets the sentence (LMSanitator, section IV-B).

Many candidates of several soft tokens start together in one batch, each in the same few short contexts. Which of them
are on the way to a backdoor shows after a few steps, so most are dropped early and the rest carried on (successive
halving).

*hull*: a soft token is a mixture of vocabulary rows (softmax weights), so it cannot leave what words can reach. Free
soft tokens collapse clean encoders too; mixtures hardly do (FIELD.md section 5). The mixtures are *annealed*: their
weights are sharpened while the optimisation goes on, until each is one word. A candidate that found a backdoor ends on
the words of the trigger and keeps the output where it was; one that only found a mixture no word stands for falls back
among the clean outputs. This is what separates the two.

*free*: a soft token is any vector within the vocabulary's range, per dimension, as in the paper. Kept as the way to a
PV once there is other evidence; its displacement and collapse are no evidence in themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.null import outlier_log_p
from lmsanitator.detect.objective import CleanSpread, displacement, mining_loss, spread, strength
from lmsanitator.detect.stage import Stage
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent

Space = Literal["hull", "free"]
Watch = Callable[[Site, list[float]], None]
_WARM = 0.4
"""Share of the steps before the sharpening begins."""
_FEWEST = 4
"""Candidates that a rung leaves at least: fewer are no null for each other."""


@dataclass(frozen=True)
class MiningConfig:
    """Args:
    space: where soft tokens may be, see the module's text.
    candidates: how many start at the first site; those of one site repel each other.
    others: the same for each further site.
    rungs: after which steps the weaker ones are dropped, and the share that is carried on. No rung may come after the
        sharpening begins: a candidate is weaker for a while when it settles on words.
    lengths: soft tokens of the candidates, in turn; room to find a pair of words in, and more.
    contexts: carriers each candidate is put into.
    context_tokens: their longest length.
    steps: of Adam.
    learning_rate: on the mixtures' logits; `free` takes a fiftieth of it.
    sharpness: what the logits are multiplied with at the end, 1 at the beginning.
    """

    space: Space = "hull"
    candidates: int = 40
    others: int = 22
    rungs: tuple[tuple[int, float], ...] = ((6, 1 / 3), (12, 1 / 2))
    lengths: tuple[int, ...] = (6, 4)
    contexts: int = 3
    context_tokens: int = 12
    steps: int = 40
    learning_rate: float = 1.0
    sharpness: float = 4.0


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

    @property
    def tokens(self) -> tuple[int, ...]:
        """The heaviest token of each mixture; none for free soft tokens."""
        return () if self.weights is None else tuple(self.weights.argmax(-1).tolist())


def mine(
    encoder: FrozenEncoder,
    contexts: Sequence[Context],
    clean: Mapping[Site, CleanSpread],
    config: MiningConfig,
    *,
    known: Mapping[Site, Float[Tensor, "known hidden"]] | None = None,
    seed: int = 0,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> dict[Site, list[Candidate]]:
    """Mine candidates at several sites, those of each site strongest first.

    Args:
        contexts: at least `config.contexts` of equal use; the first so many are taken.
        clean: the sites, and the spread of clean outputs there.
        known: PVs found already, in the encoder's own units; candidates are kept from finding them again.
        watch: told after each step how strong each candidate of a site was in it.
    """
    nothing = torch.empty(0, encoder.hidden_size)
    mined: dict[Site, list[Candidate]] = {}
    for number, (site, spread_) in enumerate(clean.items()):
        stage = Stage(encoder, contexts[: config.contexts], site, spread_)
        count = config.others if number else config.candidates
        soft = _SoftTokens(encoder.embedding_matrix(), config, count, seed + number)
        found = spread_.standardise((known or {}).get(site, nothing)).to(encoder.device)
        _optimise(stage, soft, found, config, partial(progress, f"mining at {site}"), watch)
        with torch.no_grad():
            embeddings, weights = soft.embeddings(), soft.weights()
            outputs = stage.outputs(embeddings).cpu()
        mined[site] = _candidates(site, outputs, stage.clean.cpu(), spread_, embeddings, weights)
    return mined


def _optimise(
    stage: Stage,
    soft: "_SoftTokens",
    known: Float[Tensor, "known hidden"],
    config: MiningConfig,
    done: Callable[[float], None],
    watch: Watch | None,
) -> None:
    """Optimise the candidates of one site; at every rung only the strongest go on."""
    optimiser = torch.optim.Adam(soft.parameters, lr=config.learning_rate * (1 if soft.hull else 0.02))
    rungs = dict(config.rungs)
    for step in range(config.steps):
        soft.sharpen(step / max(1, config.steps - 1))
        outputs = stage.outputs(soft.embeddings())
        optimiser.zero_grad()
        mining_loss(outputs, stage.clean, known).sum().backward()  # type: ignore[no-untyped-call] # torch's stub
        optimiser.step()
        soft.clamp()
        strengths = strength(outputs.detach(), stage.clean)
        if watch is not None:
            watch(stage.site, strengths.tolist())
        if step + 1 in rungs:
            count = min(len(strengths), max(_FEWEST, round(rungs[step + 1] * len(strengths))))
            soft.keep(strengths.topk(count).indices.sort().values.tolist())
            optimiser.param_groups[0]["params"] = soft.parameters
        done((step + 1) / config.steps)


def _candidates(
    site: Site,
    outputs: Float[Tensor, "candidates contexts hidden"],
    untouched: Float[Tensor, "contexts hidden"],
    clean: CleanSpread,
    embeddings: Sequence[Float[Tensor, "_ width"]],
    weights: Sequence[Float[Tensor, "_ vocabulary"]] | None,
) -> list[Candidate]:
    strengths = strength(outputs, untouched)
    log_p = outlier_log_p(strengths)
    moved, left = displacement(outputs, untouched), spread(outputs)
    pvs = clean.restore(outputs.mean(1))
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
    """The parameters under optimisation, a tensor for each candidate, and how they become embeddings."""

    def __init__(
        self, matrix: Float[Tensor, "vocabulary width"], config: MiningConfig, candidates: int, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = [config.lengths[index % len(config.lengths)] for index in range(candidates)]
        self.matrix = matrix
        self.hull = config.space == "hull"
        self.sharpness, self.sharpest = 1.0, config.sharpness
        if self.hull:
            start = 0.5 * torch.randn(sum(lengths), len(matrix), generator=generator)
        else:
            start = matrix[torch.randint(len(matrix), (sum(lengths),), generator=generator)].cpu()
        self.parameters = [rows.clone().to(matrix.device).requires_grad_(True) for rows in torch.split(start, lengths)]

    def keep(self, candidates: Sequence[int]) -> None:
        """Go on with these alone."""
        self.parameters = [self.parameters[index] for index in candidates]

    def sharpen(self, done: float) -> None:
        """Anneal: nothing changes while the mixtures find their way, then they are driven to one word each."""
        self.sharpness = 1 + (self.sharpest - 1) * max(0.0, done - _WARM) / (1 - _WARM)

    def weights(self) -> list[Float[Tensor, "_ vocabulary"]] | None:
        """The mixtures of each candidate."""
        return list(torch.split(self._mixtures(), self._lengths)) if self.hull else None

    def embeddings(self) -> list[Float[Tensor, "_ width"]]:
        """The soft tokens of each candidate."""
        return list(torch.split(self._mixtures() @ self.matrix, self._lengths)) if self.hull else self.parameters

    @property
    def _lengths(self) -> list[int]:
        return [len(rows) for rows in self.parameters]

    def _mixtures(self) -> Float[Tensor, "tokens vocabulary"]:
        return (torch.cat(self.parameters) * self.sharpness).softmax(-1)

    def clamp(self) -> None:
        """Keep free tokens within the vocabulary's range, per dimension (the paper allows 1.2 times that)."""
        if not self.hull:
            with torch.no_grad():
                for rows in self.parameters:
                    rows.clamp_(self.matrix.amin(0), self.matrix.amax(0))
