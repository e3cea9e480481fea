"""Tune a task on a frozen encoder: virtual tokens and a head, as ordinary PEFT adapters."""

from lmsanitator.tune.classifier import build
from lmsanitator.tune.loading import load_tuned
from lmsanitator.tune.methods import CAPABILITIES, METHODS, Method, TuneConfig, check_supported
from lmsanitator.tune.tasks import Example, Task, packaged_topics, read_task
from lmsanitator.tune.train import tune
from lmsanitator.tune.tuned import TunedModel, predict

__all__ = [
    "CAPABILITIES",
    "METHODS",
    "Example",
    "Method",
    "Task",
    "TuneConfig",
    "TunedModel",
    "build",
    "check_supported",
    "load_tuned",
    "packaged_topics",
    "predict",
    "read_task",
    "tune",
]
