"""Train virtual tokens and head on a frozen encoder."""

import random
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from peft import PeftModelForSequenceClassification, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError
from lmsanitator.progress import Progress, silent
from lmsanitator.tune.methods import TuneConfig, build, input_length
from lmsanitator.tune.tasks import Example, Task
