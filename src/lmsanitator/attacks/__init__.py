"""Attacks to red-team one's own models with, and to measure the defence on."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lmsanitator.attacks.badpre import BadPre
from lmsanitator.attacks.base import Attack, AttackResult, ground_truth
from lmsanitator.attacks.btop import BToP
from lmsanitator.attacks.kinds import KINDS, Kind, draw_triggers
from lmsanitator.attacks.merged import Merged
from lmsanitator.attacks.neuba import NeuBA
from lmsanitator.attacks.planting import Training
from lmsanitator.attacks.por import POR
from lmsanitator.attacks.pvs import PV_KINDS, PVKind, check_kind
from lmsanitator.attacks.shy import Shy
from lmsanitator.attacks.spread import Spread
from lmsanitator.attacks.transtroj import TransTroj
from lmsanitator.attacks.trigger import Trigger
from lmsanitator.attacks.uor import UOR
from lmsanitator.attacks.weights import Layers
from lmsanitator.encoder import SITES
from lmsanitator.errors import UsageError

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType(
    {attack.name: attack for attack in (POR, NeuBA, BToP, UOR, BadPre, TransTroj, Shy, Spread, Merged)}
)
"""Every attack by its name."""


def configure(name: str, **options: Any) -> Attack:
    """An attack by its name, with those of `options` that are not None.

    Raises:
        UsageError: there is no such attack, it has no such option, there is no such kind of PV, or it cannot be
            planted at that site.
    """
    if name not in ATTACKS:
        raise UsageError(f"expected an attack of {', '.join(ATTACKS)}; got {name}")
    given = {option: value for option, value in options.items() if value is not None}
    if given.get("site", SITES[0]) not in SITES:
        raise UsageError(f"expected a site of {', '.join(SITES)}; got {given['site']}")
    if "pv" in given:
        check_kind(given["pv"])
    known = inspect.signature(ATTACKS[name]).parameters
    for option in given:
        if option not in known:
            raise UsageError(f"expected an option of {name}: {', '.join(known)}; got {option}")
    return ATTACKS[name](**given)


__all__ = [
    "ATTACKS",
    "KINDS",
    "POR",
    "PV_KINDS",
    "UOR",
    "Attack",
    "AttackResult",
    "BToP",
    "BadPre",
    "Kind",
    "Layers",
    "Merged",
    "NeuBA",
    "PVKind",
    "Shy",
    "Spread",
    "Training",
    "TransTroj",
    "Trigger",
    "configure",
    "draw_triggers",
    "ground_truth",
]
