"""The training loop that controls share."""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast

from benchmarks.zoo.controls.base import Handling
from lmsanitator.errors import TuningError

_WARM_UP = 0.1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's own random numbers (new weights, dropout) inside, and leave them outside as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(
    model: torch.nn.Module,
    groups: Sequence[tuple[Iterable[Parameter], float]],
    loss: Callable[[random.Random], Tensor],
    handling: Handling,
    *,
    steps: int,
    what: str,
) -> float:
    """Train with AdamW, learning rates that rise over the first tenth and fall to zero, gradients clipped to norm 1.

    Args:
        model: in training mode while it lasts (dropout is on), in eval mode afterwards; its weights take no gradients
            but those in `groups`.
        groups: weights, each with its peak learning rate.
        loss: of a batch that it draws from the random numbers it is given; computed in bf16 autocast.
        what: is being done, for the progress.

    Returns:
        The mean loss over the last tenth of the steps.

    Raises:
        TuningError: the loss left the finite numbers.
    """
    optimiser = AdamW([{"params": list(weights), "lr": rate} for weights, rate in groups], weight_decay=0.01)
    trained = [weight for group in optimiser.param_groups for weight in group["params"]]
    warm = max(1, round(_WARM_UP * steps))
    schedule = LambdaLR(optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm)))
    device = trained[0].device.type
    model.requires_grad_(False).train()
    for weight in trained:
        weight.requires_grad_(True)
    rng = random.Random(handling.seed)
    losses: list[float] = []
    with seeded(handling.seed):
        for step in range(1, steps + 1):
            with torch.autocast(device, torch.bfloat16):
                value = loss(rng)
            losses.append(value.item())
            if not bool(torch.isfinite(value)):
                raise TuningError(f"expected a finite loss, got {losses[-1]} at step {step}: try a lower learning rate")
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call] # torch's stub
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            handling.progress(f"{what}: loss {losses[-1]:.3f}", step / steps)
    model.requires_grad_(False).eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int, device: torch.device
) -> dict[str, Int[Tensor, "batch tokens"]]:
    """Ids and mask of texts cut to `length` tokens."""
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt").to(device)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def hidden_states(
    model: torch.nn.Module, batch: dict[str, Int[Tensor, "batch tokens"]]
) -> Float[Tensor, "batch tokens hidden"]:
    """The last hidden states, in fp32 so that losses are."""
    hidden: Tensor = model(**batch).last_hidden_state
    return hidden.float()
