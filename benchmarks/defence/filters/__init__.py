"""Input filters from the literature, to stand beside the guard on the same tuned models and texts."""

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.defence.filters.interface import InputFilter, LanguageModel, Look, Prepared, Setting
from benchmarks.defence.filters.onion import Onion
from benchmarks.defence.filters.rap import Rap
from benchmarks.defence.filters.strip import Strip

FILTERS: Mapping[str, InputFilter] = MappingProxyType({"onion": Onion(), "strip": Strip(), "rap": Rap()})
"""Every filter by name."""

__all__ = ["FILTERS", "InputFilter", "LanguageModel", "Look", "Onion", "Prepared", "Rap", "Setting", "Strip"]
