"""Evidence: tokens put into natural contexts, what came of it, and how likely that is for words that are no trigger."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.null import TailNull, spreads_more
from lmsanitator.detect.objective import CleanSpread, covered, displacement, spread, strength
from lmsanitator.encoder import FrozenEncoder, Site

REPLAYS = 0.8
"""Share of carriers in which a trigger has to fire."""
HALFWAY = 0.5
"""A trigger replays where it covers at least half of the way from the clean output to its PV."""


@dataclass(frozen=True)
class Evidence:
    """Tokens put into natural contexts, and what came of it at one site."""

    site: Site
    tokens: tuple[int, ...]
    displacement: float
    spread: float
    strength: float
    replay_rate: float
    """Share of contexts, not those the PV was measured on, in which the tokens cover half of the way to it."""
    pv: Float[Tensor, "hidden"]


class Replayer:
    """Puts token sequences into the same natural contexts and measures them.

    Args:
        contexts: two halves of it are told apart: the PV is measured on one and replayed on the other.
        exact: compute in fp32.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        sites: Sequence[Site],
        contexts: Sequence[Context],
        clean: dict[Site, CleanSpread],
        *,
        exact: bool,
    ) -> None:
        self.encoder = encoder
        self.sites = tuple(sites)
        self.contexts = list(contexts)
        self.spreads = clean
        self.exact = exact
        self.clean = self._outputs([()])

    def _outputs(self, sequences: Sequence[Sequence[int]]) -> dict[Site, Float[Tensor, "sequences contexts hidden"]]:
        bodies = [context.around(tokens) for tokens in sequences for context in self.contexts]
        out = self.encoder.outputs_of_ids(bodies, self.sites, exact=self.exact)
        return {
            site: self.spreads[site].standardise(values).view(len(sequences), len(self.contexts), -1)
            for site, values in out.items()
        }

    def measure(self, sequences: Sequence[Sequence[int]]) -> dict[Site, list[Evidence]]:
        """Evidence for each token sequence at each site, in the order given."""
        if not sequences:
            return {site: [] for site in self.sites}
        outputs = self._outputs(sequences)
        return {
            site: [
                self._evidence(site, tuple(tokens), triggered)
                for tokens, triggered in zip(sequences, outputs[site], strict=True)
            ]
            for site in self.sites
        }

    def _evidence(self, site: Site, tokens: tuple[int, ...], triggered: Float[Tensor, "contexts hidden"]) -> Evidence:
        clean = self.clean[site][0]
        half = len(triggered) // 2
        ways = torch.cat(
            [
                covered(triggered[half:], clean[half:], triggered[:half].mean(0)),
                covered(triggered[:half], clean[:half], triggered[half:].mean(0)),
            ]
        )
        return Evidence(
            site,
            tokens,
            displacement(triggered, clean).item(),
            spread(triggered).item(),
            strength(triggered, clean).item(),
            (ways >= HALFWAY).float().mean().item(),
            self.spreads[site].restore(triggered.mean(0)),
        )


def without_echoes(found: Sequence[Evidence], clean: CleanSpread, contexts: int) -> list[Evidence]:
    """Drop words that only echo a trigger: same direction, but significantly less constant than the best of its kind
    (neighbours of a trigger in embedding space fire too, less surely)."""
    kept: list[Evidence] = []
    for evidence in sorted(found, key=lambda item: item.spread):
        direction = functional.normalize(clean.standardise(evidence.pv), dim=-1)
        echoed = any(
            float(direction @ functional.normalize(clean.standardise(other.pv), dim=-1)) > HALFWAY
            and spreads_more(evidence.spread, other.spread, contexts)
            for other in kept
        )
        if not echoed:
            kept.append(evidence)
    return kept


def phrase_null(
    replayer: Replayer, site: Site, length: int, allowed: Sequence[int], *, count: int, seed: int
) -> tuple[TailNull, TailNull]:
    """What random phrases of `length` tokens do in the same contexts: tails of log displacement and of -log spread."""
    rng = random.Random(seed)
    evidence = replayer.measure([rng.choices(allowed, k=length) for _ in range(count)])[site]
    return tuple(
        TailNull.fit(torch.tensor(samples), mass=0.25, censored=0.05)
        for samples in (
            [math.log(max(item.displacement, 1e-6)) for item in evidence],
            [-math.log(max(item.spread, 1e-6)) for item in evidence],
        )
    )  # type: ignore[return-value] # two tails, as mypy cannot count


def phrase_log_p(evidence: Evidence, null: tuple[TailNull, TailNull], vocabulary: int, sites: int) -> float:
    """log p of a phrase, corrected as if every phrase of its length had been tried at every site (far more than the
    search did look at)."""
    trials = len(evidence.tokens) * math.log(vocabulary) + math.log(2 * sites)
    far = null[0].log_p(torch.tensor(math.log(max(evidence.displacement, 1e-6))), trials)
    constant = null[1].log_p(torch.tensor(-math.log(max(evidence.spread, 1e-6))), trials)
    return min(far.item(), constant.item())
