"""From what the searches hold to what can be drawn of them (`Seen`)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.replay import Replayer
from lmsanitator.detect.seen import NamedToken, Outputs, Point, Triggered, Vocabulary
from lmsanitator.detect.sweep import SweepResult
from lmsanitator.encoder import FrozenEncoder, Site, one_vector

_COLUMNS, _ROWS = 60, 36
_NAMED = 12
"""Outliers that are named, of each kind."""
_DRAWN = 12
"""Findings whose outputs are drawn."""
_NEAREST = 1e-3
"""Displacements below this, in clean variances, are all the same to the eye."""


def vocabulary_of(encoder: FrozenEncoder, site: Site, swept: SweepResult) -> Vocabulary:
    """The sweep at one site, as a grid of counts and the names of those that stand out most."""
    far = swept.displacement.clamp_min(_NEAREST)
    least, most = far.min().log10().item(), (1.01 * far.max()).log10().item()
    across = torch.logspace(least, most, _COLUMNS + 1)
    up = torch.linspace(min(0.0, swept.spread.min().item()), swept.spread.max().item() * 1.01, _ROWS + 1)
    column = (torch.bucketize(far, across, right=True) - 1).clamp(0, _COLUMNS - 1)
    row = (torch.bucketize(swept.spread, up, right=True) - 1).clamp(0, _ROWS - 1)
    counts = torch.zeros(_ROWS, _COLUMNS, dtype=torch.long)
    counts.index_put_((row, column), torch.ones_like(row), accumulate=True)
    named = [*far.topk(min(_NAMED, len(far))).indices.tolist(), *swept.spread.argsort()[:_NAMED].tolist()]
    tokens = encoder.tokenizer.convert_ids_to_tokens(swept.tokens[named].tolist())
    return Vocabulary(
        site=site,
        displacements=_rounded(across),
        spreads=_rounded(up),
        counts=counts.tolist(),
        outliers=[
            NamedToken(
                token=str(token), displacement=round(far[at].item(), 5), spread=round(swept.spread[at].item(), 5)
            )
            for at, token in dict(zip(named, tokens, strict=True)).items()
        ],
    )


def outputs_of(found: Sequence[Confirmed], replayer: Replayer) -> Outputs | None:
    """The outputs of the passages that triggers were confirmed in, at the site of the first of these; None without.

    Args:
        found: in the order of the report's findings.
    """
    if not found:
        return None
    site = one_vector(found[0].evidence.site)
    shown = [number for number, item in enumerate(found) if one_vector(item.evidence.site) == site][:_DRAWN]
    triggered = replayer.outputs([found[number].evidence.tokens for number in shown])[site]
    clean = replayer.clean(1)[site]
    together = torch.cat([clean, triggered.flatten(0, 1)])
    points, share = plane(together)
    parts = points[len(clean) :].view(len(shown), len(clean), 2)
    return Outputs(
        site=site,
        share=round(share, 4),
        clean=_points(points[: len(clean)]),
        triggered=[Triggered(finding=number, points=_points(part)) for number, part in zip(shown, parts, strict=True)],
    )


def plane(rows: Float[Tensor, "rows hidden"]) -> tuple[Float[Tensor, "rows 2"], float]:
    """The rows in the plane in which they differ most, and the share of their variance in it (principal components).
    Each axis points to where the row lies that is furthest along it."""
    centred = (rows - rows.mean(0)).double()
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    furthest = points.abs().argmax(0)
    points = points * points[furthest, torch.arange(2)].sign()
    share = (sizes[:2].square().sum() / sizes.square().sum().clamp_min(1e-24)).item()
    return points, share


def _points(rows: Float[Tensor, "rows 2"]) -> list[Point]:
    return [(round(x, 3), round(y, 3)) for x, y in rows.tolist()]


def _rounded(values: Float[Tensor, "values"]) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
