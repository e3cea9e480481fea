"""Input filters from the literature, to stand beside the guard on the same tuned models and texts."""

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.filters.interface import InputFilter, LanguageModel, Look, Prepared, Setting
from benchmarks.filters.onion import Onion
from benchmarks.filters.rap import Rap
from benchmarks.filters.strip import Strip

FILTERS: Mapping[str, InputFilter] = MappingProxyType({"onion": Onion(), "strip": Strip(), "rap": Rap()})
"""Every filter by name."""

__all__ = ["FILTERS", "InputFilter", "LanguageModel", "Look", "Onion", "Prepared", "Rap", "Setting", "Strip"]
