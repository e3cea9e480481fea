"""PV mining: soft triggers optimised until the output forgets the sentence (LMSanitator, section IV-B).

Many candidates of a few soft tokens start together in one batch, each in the same few short contexts. A soft token is
any vector within the vocabulary's range, per dimension, as in the paper. In two dozen steps most of them reach an
output that is far away and the same in every context, on a clean encoder as on a backdoored one: so how far they get is
no evidence of anything (FIELD.md section 5). But where there is a backdoor its PVs are such outputs, and some of the
candidates lead there, also where the trigger is a phrase of which no part does anything. Whether one did shows when
words are looked for that lead the same way (`toward`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.objective import CleanSpread, displacement, mining_loss, spread, strength
from lmsanitator.detect.stage import Stage
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent

Watch = Callable[[Site, list[float]], None]


@dataclass(frozen=True)
class MiningConfig:
    """Args:
    candidates: how many start at the first site; those of one site repel each other.
    others: the same for each further site.
    soft: soft tokens of a candidate. Three lead to PVs sooner than the paper's seven, and one does not always.
    contexts: carriers each candidate is put into.
    context_tokens: their longest length.
    steps: of Adam. More of them lead past PVs, to outputs that no word reaches.
    learning_rate: of Adam.
    """

    candidates: int = 24
    others: int = 12
    soft: int = 3
    contexts: int = 5
    context_tokens: int = 12
    steps: int = 20
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Candidate:
    """A mined soft trigger with what it does."""

    site: Site
    pv: Float[Tensor, "hidden"]
    """Mean output under it, in the encoder's own units."""
    displacement: float
    spread: float
    strength: float
    embeddings: Float[Tensor, "soft width"]


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
        soft = _start(encoder.embedding_matrix, count, config.soft, seed + number)
        found = spread_.standardise((known or {}).get(site, nothing)).to(encoder.device)
        _optimise(stage, soft, found, config, partial(progress, f"mining at {site}"), watch)
        with torch.no_grad():
            outputs = stage.outputs(list(soft)).cpu()
        mined[site] = _candidates(stage, outputs, soft.detach())
    return mined


def _start(
    matrix: Float[Tensor, "vocabulary width"], candidates: int, soft: int, seed: int
) -> Float[Tensor, "candidates soft width"]:
    """Random vocabulary rows."""
    drawn = torch.randint(len(matrix), (candidates, soft), generator=torch.Generator().manual_seed(seed))
    return matrix[drawn.to(matrix.device)].clone().requires_grad_(True)


def _optimise(
    stage: Stage,
    soft: Float[Tensor, "candidates soft width"],
    known: Float[Tensor, "known hidden"],
    config: MiningConfig,
    done: Callable[[float], None],
    watch: Watch | None,
) -> None:
    """Optimise the candidates of one site, within the vocabulary's range per dimension (the paper allows 1.2 times)."""
    matrix = stage.encoder.embedding_matrix
    low, high = matrix.amin(0), matrix.amax(0)
    optimiser = torch.optim.Adam([soft], lr=config.learning_rate)
    for step in range(config.steps):
        outputs = stage.outputs(list(soft))
        optimiser.zero_grad()
        mining_loss(outputs, stage.clean, known).sum().backward()  # type: ignore[no-untyped-call] # torch's stub
        optimiser.step()
        with torch.no_grad():
            soft.clamp_(low, high)
        if watch is not None:
            watch(stage.site, strength(outputs.detach(), stage.clean).tolist())
        done((step + 1) / config.steps)


def _candidates(
    stage: Stage, outputs: Float[Tensor, "candidates contexts hidden"], soft: Float[Tensor, "candidates soft width"]
) -> list[Candidate]:
    untouched = stage.clean.cpu()
    strengths = strength(outputs, untouched)
    moved, left = displacement(outputs, untouched), spread(outputs)
    pvs = stage.spread.restore(outputs.mean(1))
    return [
        Candidate(stage.site, pvs[index], moved[index].item(), left[index].item(), strengths[index].item(), soft[index])
        for index in strengths.argsort(descending=True).tolist()
    ]
