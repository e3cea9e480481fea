"""Do the PVs of a scan still hold in a pass of the tuned model?

The raw pass of a model on the scanned encoder needs no check: it is what was scanned. A soft prompt moves the outputs a
little, LoRA and full fine-tuning move them more. There the named trigger of each PV is put into clean sentences: it
still arrives at the PV, or at another vector, which is then watched instead, or nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.evidence import REPLAYS
from lmsanitator.encoder import Site
from lmsanitator.guard.match import SignMatch
from lmsanitator.guard.trial import same_way
from lmsanitator.vectors import PredefinedVector

Arrival = Literal["holds", "moved", "gone"]
_ENOUGH = 8  # sentences to find a new vector by: half of them make it, half try it


@dataclass(frozen=True)
class Anchor:
    """A PV as it is in one pass."""

    vector: PredefinedVector
    arrival: Arrival


def find_anchor(
    vector: PredefinedVector,
    clean: Mapping[Site, Float[Tensor, "texts hidden"]],
    planted: Mapping[Site, Float[Tensor, "some hidden"]],
) -> Anchor:
    """Where the trigger of a PV arrives now.

    A vector is arrived at when the outputs of at least `REPLAYS` of the sentences with the trigger match it better than
    that of any sentence without. A new one is where every other sentence agrees, and the rest have to arrive at it.

    Args:
        clean: outputs of the sentences without the trigger.
        planted: outputs with the trigger, of the sentences in which it does something.
    """
    if _arrives(vector, clean, planted):
        return Anchor(vector, "holds")
    site = vector.site
    moved = replace(vector, values=same_way(planted[site][::2]))
    if len(planted[site]) >= _ENOUGH and _arrives(moved, clean, {site: planted[site][1::2]}):
        return Anchor(moved, "moved")
    return Anchor(vector, "gone")


def _arrives(
    vector: PredefinedVector, clean: Mapping[Site, Tensor], planted: Mapping[Site, Float[Tensor, "some hidden"]]
) -> bool:
    if not bool(vector.values.any()):
        return False
    match = SignMatch([vector])
    there = match(planted)[:, 0] > match(clean)[:, 0].max()
    return float(there.float().mean()) >= REPLAYS


def list_names(vectors: Sequence[PredefinedVector]) -> str:
    """The triggers of vectors, for a message."""
    return ", ".join(repr(vector.trigger) if vector.trigger else "(not named)" for vector in vectors)
