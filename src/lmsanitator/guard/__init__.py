"""Watch the frozen encoder's output at inference, and purge what it flags."""

from lmsanitator.guard.evaluate import Evaluation, evaluate
from lmsanitator.guard.guard import Guard, GuardedPrediction
from lmsanitator.guard.monitor import Monitor, Watch
from lmsanitator.guard.purge import PurgeConfig, Purged, purge

__all__ = [
    "Evaluation",
    "Guard",
    "GuardedPrediction",
    "Monitor",
    "PurgeConfig",
    "Purged",
    "Watch",
    "evaluate",
    "purge",
]
