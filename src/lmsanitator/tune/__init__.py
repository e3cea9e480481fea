"""Tune a task on a frozen encoder: virtual tokens or low-rank weights, and a head, as ordinary PEFT adapters."""

from lmsanitator.text import Text
from lmsanitator.tune.classifier import build, build_tagger
from lmsanitator.tune.head import SiteClassifier
from lmsanitator.tune.inputs import make_inputs
from lmsanitator.tune.loading import load_tuned
from lmsanitator.tune.methods import CAPABILITIES, HEAD_SITES, METHODS, HeadSite, Method, TuneConfig, check_supported
from lmsanitator.tune.tagger import WordScores, entity_f1, predict_words
from lmsanitator.tune.tagging import OUTSIDE, Tagged, Tagging, open_task, read_tagging
from lmsanitator.tune.tasks import Example, Task, packaged_topics, read_task
from lmsanitator.tune.train import tune
from lmsanitator.tune.tuned import TunedModel, predict

__all__ = [
    "CAPABILITIES",
    "HEAD_SITES",
    "METHODS",
    "OUTSIDE",
    "Example",
    "HeadSite",
    "Method",
    "SiteClassifier",
    "Tagged",
    "Tagging",
    "Task",
    "Text",
    "TuneConfig",
    "TunedModel",
    "WordScores",
    "build",
    "build_tagger",
    "check_supported",
    "entity_f1",
    "load_tuned",
    "make_inputs",
    "open_task",
    "packaged_topics",
    "predict",
    "predict_words",
    "read_tagging",
    "read_task",
    "tune",
]
