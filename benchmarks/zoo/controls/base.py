"""What all controls share: what they are given, what they return and may train, and what shows they did something."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.attacks.weights import layer_stack
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UnsupportedError
from lmsanitator.progress import Progress, silent
from lmsanitator.text.carriers import draw

MEASURED = 64
"""Carriers on which outputs are compared."""


@dataclass(frozen=True)
class Handling:
    """What every control is given beside the encoder.

    Args:
        carriers: clean sentences, to train on and to compare outputs on.
        data: a folder with task folders in it, as `read_task` takes them; only `finetune` and `lora` need it.
        seed: of everything random in it.
        progress: told of every training step.
    """

    carriers: Sequence[str]
    data: Path | None = None
    seed: int = 0
    progress: Progress = silent


@dataclass(frozen=True)
class ControlResult:
    """A clean encoder that was handled: frozen, in eval mode."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    reached: dict[str, float]
    """What was done to it. Of every control: `cosine`, mean over carriers of the cosine of its CLS output with the
    original's; `largest_change` of any weight; `relative_change`, the norm of what changed over the norm the changed
    tensors had. More in each control's own docstring."""


Control = Callable[Concatenate[FrozenEncoder, Handling, ...], ControlResult]


def original(base: FrozenEncoder, handling: Handling) -> ControlResult:
    """The encoder as it came."""
    return finished(base, copy.deepcopy(base.model), handling)


def finished(base: FrozenEncoder, model: PreTrainedModel, handling: Handling, **reached: float) -> ControlResult:
    """The result of a control, frozen, with the figures that every control has put before its own.

    Raises:
        UnsupportedError: the encoder has no CLS site.
    """
    base.require(["cls"])
    handled = FrozenEncoder(model, base.tokenizer, precision="fp32", device=str(base.device))
    texts = draw(handling.carriers, MEASURED, handling.seed)
    cosine = functional.cosine_similarity(
        handled.outputs_of_texts(texts, ["cls"])["cls"], base.outputs_of_texts(texts, ["cls"])["cls"]
    )
    figures = {"cosine": round(cosine.mean().item(), 6)} | weight_change(base.model, model)
    return ControlResult(handled.model, base.tokenizer, figures | reached)


def weight_change(before: PreTrainedModel, after: PreTrainedModel) -> dict[str, float]:
    """How far the weights moved: the largest step of one, and all together relative to the tensors that moved."""
    largest = moved = norm = 0.0
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        step = (new - old).detach()
        if step.any():
            largest = max(largest, step.abs().max().item())
            moved += step.double().square().sum().item()
            norm += old.double().square().sum().item()
    return {"largest_change": largest, "relative_change": (moved / norm) ** 0.5 if norm else 0.0}


def layer_linears(model: PreTrainedModel) -> list[torch.nn.Linear]:
    """The linear modules of the transformer layers, in order; their weights are (out, in).

    Raises:
        UnsupportedError: there are none (GPT-2 has convolutions there).
    """
    linears = [module for module in layer_stack(model).modules() if isinstance(module, torch.nn.Linear)]
    if not linears:
        raise UnsupportedError(f"expected linear modules in the layers of {type(model).__name__}, found none")
    return linears
