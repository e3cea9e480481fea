"""lmsanitator: find and disarm task-agnostic backdoors in pretrained Transformers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmsanitator.detect import Finding, ScanConfig, ScanReport, Verdict
    from lmsanitator.detect.scan import scan
    from lmsanitator.encoder import FrozenEncoder
    from lmsanitator.errors import LMSanitatorError
    from lmsanitator.guard import Guard, GuardedPrediction, GuardedTags, TaggingGuard
    from lmsanitator.pipeline import GuardedTextClassification
    from lmsanitator.vectors import PredefinedVector, PVBank

__version__ = "0.1.0"

__all__ = [
    "Finding",
    "FrozenEncoder",
    "Guard",
    "GuardedPrediction",
    "GuardedTags",
    "GuardedTextClassification",
    "LMSanitatorError",
    "PVBank",
    "PredefinedVector",
    "ScanConfig",
    "ScanReport",
    "TaggingGuard",
    "Verdict",
    "scan",
]

_HOMES = {
    "detect": ("Finding", "ScanConfig", "ScanReport", "Verdict"),
    "detect.scan": ("scan",),
    "encoder": ("FrozenEncoder",),
    "errors": ("LMSanitatorError",),
    "guard": ("Guard", "GuardedPrediction", "GuardedTags", "TaggingGuard"),
    "pipeline": ("GuardedTextClassification",),
    "vectors": ("PVBank", "PredefinedVector"),
}


def __getattr__(name: str) -> object:
    """Import public names when they are first used: torch and transformers take seconds to load."""
    import importlib

    for room, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
