"""Replaying: tokens are put into natural contexts, and what comes of it is measured."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import optimize
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.contexts import Context
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.objective import (
    SAME_WAY,
    CleanSpread,
    along,
    covered,
    directions,
    displacement,
    spread,
    steadiness,
    strength,
)
from lmsanitator.encoder import FrozenEncoder, Site, one_vector
from lmsanitator.encoder.padding import pad

CLEAN = 160
"""Clean contexts that the spread of clean outputs is measured on."""
HALFWAY = 0.5
"""A trigger fires where the output has gone at least half of the trigger's usual way."""


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
        self._clean: dict[int, dict[Site, Float[Tensor, "contexts hidden"]]] = {}
        self._measured: dict[tuple[int, ...], dict[Site, Evidence]] = {}

    def clean(self, tokens: int) -> dict[Site, Float[Tensor, "contexts hidden"]]:
        """Standardised outputs of the contexts themselves, to compare with what so many tokens put in do."""
        if tokens not in self._clean:
            self._clean[tokens] = self._outputs_of([context.without(tokens) for context in self.contexts])
        return self._clean[tokens]

    def outputs(self, sequences: Sequence[Sequence[int]]) -> dict[Site, Float[Tensor, "sequences contexts hidden"]]:
        """Standardised outputs of the contexts with each token sequence in them."""
        out = self._outputs_of([context.around(tokens) for tokens in sequences for context in self.contexts])
        return {site: values.view(len(sequences), len(self.contexts), -1) for site, values in out.items()}

    def _outputs_of(self, bodies: Sequence[Sequence[int]]) -> dict[Site, Float[Tensor, "bodies hidden"]]:
        out = self.encoder.outputs_of_ids(bodies, self.sites, exact=self.exact)
        return {site: self.spreads[site].standardise(values) for site, values in out.items()}

    def measure(self, sequences: Sequence[Sequence[int]]) -> dict[Site, list[Evidence]]:
        """Evidence for each token sequence at each site, in the order given. A sequence is measured once: the contexts
        stay the same, and several stages ask for the same words."""
        wanted = [tuple(tokens) for tokens in sequences]
        new = [tokens for tokens in dict.fromkeys(wanted) if tokens not in self._measured]
        if new:
            outputs = self.outputs(new)
            for length in sorted(set(map(len, new))):
                places = [place for place, tokens in enumerate(new) if len(tokens) == length]
                alike = [new[place] for place in places]
                found = [self._evidence(site, alike, outputs[site][places]) for site in self.sites]
                for tokens, of_each in zip(alike, zip(*found, strict=True), strict=True):
                    self._measured[tokens] = dict(zip(self.sites, of_each, strict=True))
        return {site: [self._measured[tokens][site] for tokens in wanted] for site in self.sites}

    def arrives(self, evidence: Evidence, pv: Float[Tensor, "hidden"]) -> bool:
        """Whether the tokens take the mean output of these contexts closer to `pv` than half its distance."""
        site = one_vector(evidence.site)
        there, goal = self.spreads[site].standardise(torch.stack([evidence.pv, pv]))
        return covered(there, self.clean(len(evidence.tokens))[site].mean(0), goal).item() >= HALFWAY

    def shift(self, evidence: Evidence) -> Float[Tensor, "hidden"]:
        """Where the tokens take the mean output of these contexts, from where it is without them; standardised."""
        site = one_vector(evidence.site)
        return self.spreads[site].standardise(evidence.pv) - self.clean(len(evidence.tokens))[site].mean(0)

    def arriving_tokens(self, evidence: Evidence) -> float:
        """The share of all single tokens of triggered inputs that come closer to the PV than half the distance that
        tokens of the clean inputs have on average: 1 where a trigger takes over every token, not their mean alone."""
        before, after = self.encoder.frame
        rows = [
            [*before, *context.around(tokens), *after] for tokens in ((), evidence.tokens) for context in self.contexts
        ]
        ids, mask = pad(rows, int(self.encoder.tokenizer.pad_token_id))
        hidden = self.encoder.outputs(ids, mask, ["tokens"], exact=self.exact)["tokens"].cpu()
        distance = torch.linalg.vector_norm(hidden - evidence.pv, dim=-1)
        clean, triggered = (part[real.bool()] for part, real in zip(distance.chunk(2), mask.chunk(2), strict=True))
        arrived: Tensor = triggered <= HALFWAY * clean.mean()
        return arrived.float().mean().item()

    def _evidence(
        self, site: Site, sequences: Sequence[tuple[int, ...]], triggered: Float[Tensor, "sequences contexts hidden"]
    ) -> list[Evidence]:
        """Of sequences of one length, which are compared with the same clean outputs."""
        clean = self.clean(len(sequences[0]))[site]
        half = len(clean) // 2
        gone: list[Tensor] = []
        arrived: list[Tensor] = []
        for seen, other in ((slice(half, None), slice(half)), (slice(half), slice(half, None))):
            pv = triggered[:, other].mean(1, keepdim=True)
            gone.append(along(triggered[:, seen], clean[seen], pv - clean[other].mean(0)) >= HALFWAY)
            arrived.append(covered(triggered[:, seen], clean[seen], pv) >= HALFWAY)
        mean = triggered.mean(1)
        numbers = zip(
            displacement(triggered, clean).tolist(),
            (spread(triggered) / spread(clean).clamp_min(1e-6)).tolist(),
            strength(triggered, clean).tolist(),
            torch.cat(gone, 1).float().mean(1).tolist(),
            torch.cat(arrived, 1).float().mean(1).tolist(),
            self.spreads[site].restore(mean),
            ((len(clean) - 1) * directions(triggered)).tolist(),
            self.spreads[site].beyond(mean - clean.mean(0)).tolist(),
            steadiness(triggered, clean).tolist(),
            strict=True,
        )
        return [Evidence(site, tokens, *values) for tokens, values in zip(sequences, numbers, strict=True)]


def lead_alike(found: Sequence[Evidence], replayer: Replayer) -> Bool[Tensor, "found found"]:
    """Which of these, all measured at one site by `replayer`, shift its contexts' outputs the same way."""
    return likeness(found, replayer) > SAME_WAY


def likeness(found: Sequence[Evidence], replayer: Replayer) -> Float[Tensor, "found found"]:
    """Cosines of the ways in which these, all measured at one site by `replayer`, shift its contexts' outputs."""
    if not found:
        return torch.zeros(0, 0)
    ways = functional.normalize(torch.stack([replayer.shift(item) for item in found]), dim=-1)
    return ways @ ways.T


def leads_between(item: Evidence, others: Sequence[Evidence], replayer: Replayer) -> bool:
    """Whether something shifts outputs the same way as others do, or between them: a mixture of words of two triggers
    leads somewhere between their PVs. All are measured at one site by `replayer`."""
    if not others:
        return False
    way = replayer.shift(item).double().numpy()
    ways = torch.stack([replayer.shift(other) for other in others]).double().numpy()
    ways /= np.linalg.norm(ways, axis=1, keepdims=True).clip(1e-12)
    _, left = optimize.nnls(ways.T, way)
    return bool(left < math.sqrt(1 - SAME_WAY**2) * np.linalg.norm(way))


def clean_spreads(
    encoder: FrozenEncoder, contexts: Sequence[Context], sites: Sequence[Site]
) -> dict[Site, CleanSpread]:
    """The spread of clean outputs at each site, over contexts with nothing put in."""
    outputs = encoder.outputs_of_ids([context.clean for context in contexts], sites)
    return {site: CleanSpread.of(outputs[site]) for site in sites}
