"""Attacks to red-team one's own models with, and to measure the defence on."""

from collections.abc import Mapping
from types import MappingProxyType

from lmsanitator.attacks.base import Attack, AttackResult, Trigger, ground_truth
from lmsanitator.attacks.por import POR

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType({attack.name: attack for attack in (POR,)})
"""Every attack by its name."""

__all__ = ["ATTACKS", "POR", "Attack", "AttackResult", "Trigger", "ground_truth"]
