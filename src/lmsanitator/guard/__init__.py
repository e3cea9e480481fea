"""Watch the frozen encoder's output at inference, and purge what it flags."""

from lmsanitator.guard.evaluate import Evaluation, evaluate
from lmsanitator.guard.fit import Dropped
from lmsanitator.guard.guard import Guard, GuardedPrediction
from lmsanitator.guard.monitor import Check, Monitor, Watch
from lmsanitator.guard.purge import Purged, purge, purge_all
from lmsanitator.guard.search import PurgeConfig
from lmsanitator.guard.tagging import GuardedTags, TaggingGuard
from lmsanitator.guard.thresholds import Thresholds

__all__ = [
    "Check",
    "Dropped",
    "Evaluation",
    "Guard",
    "GuardedPrediction",
    "GuardedTags",
    "Monitor",
    "PurgeConfig",
    "Purged",
    "TaggingGuard",
    "Thresholds",
    "Watch",
    "evaluate",
    "purge",
    "purge_all",
]
