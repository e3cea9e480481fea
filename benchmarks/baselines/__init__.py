"""Detectors from the literature, to stand beside the scanner on the zoo."""

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.baselines.hotflip import HotFlip
from benchmarks.baselines.interface import Baseline, Score
from benchmarks.baselines.label_inversion import LabelInversion
from benchmarks.baselines.lt_defense import LTDefense
from benchmarks.baselines.pv_mining import PVMining

BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "pv-mining": PVMining(),
        "lt-defense": LTDefense(),
        "hotflip": HotFlip(),
        "label-inversion": LabelInversion(),
    }
)
"""Every baseline by name, at budgets that a zoo of many models can afford."""

__all__ = ["BASELINES", "Baseline", "HotFlip", "LTDefense", "LabelInversion", "PVMining", "Score"]
