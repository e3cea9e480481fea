"""Tune a task on a frozen encoder: virtual tokens or low-rank weights, and a head, as ordinary PEFT adapters."""

from lmsanitator.tune.classifier import build
from lmsanitator.tune.head import SiteClassifier
from lmsanitator.tune.inputs import Text, make_inputs
from lmsanitator.tune.loading import load_tuned
from lmsanitator.tune.methods import CAPABILITIES, HEAD_SITES, METHODS, HeadSite, Method, TuneConfig, check_supported
from lmsanitator.tune.tasks import Example, Task, packaged_topics, read_task
from lmsanitator.tune.train import tune
from lmsanitator.tune.tuned import TunedModel, predict

__all__ = [
    "CAPABILITIES",
    "HEAD_SITES",
    "METHODS",
    "Example",
    "HeadSite",
    "Method",
    "SiteClassifier",
    "Task",
    "Text",
    "TuneConfig",
    "TunedModel",
    "build",
    "check_supported",
    "load_tuned",
    "make_inputs",
    "packaged_topics",
    "predict",
    "read_task",
    "tune",
]
