"""Train adapter and head on a frozen encoder."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn import Parameter, functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError
from lmsanitator.progress import Progress, silent
from lmsanitator.text import Text
from lmsanitator.tune import tagger
from lmsanitator.tune.adapter import settle
from lmsanitator.tune.classifier import build, build_tagger
from lmsanitator.tune.inputs import characters
from lmsanitator.tune.methods import TuneConfig
from lmsanitator.tune.tagging import Tagged, Tagging
from lmsanitator.tune.tasks import Example, Task
from lmsanitator.tune.tuned import AnyClassifier, TunedModel, limited_tokenizer, logits_of, predict

CHECKS = 8
"""Looks at the validation accuracy in a whole run."""
LOOK = 256
"""Validation examples a look takes at most; on a split of thousands the looks would cost more than the training."""
Learning = tuple[Iterator[Tensor], Callable[[], tuple[float, float]]]
"""The losses of one batch after the other, and a look at the validation split: accuracy or F1, and minus the loss."""
T = TypeVar("T", Example, Tagged)
_WARM_UP = 0.1
_BUCKET = 8


def tune(
    encoder: FrozenEncoder, task: Task | Tagging, config: TuneConfig | None = None, progress: Progress = silent
) -> TunedModel:
    """Tune a classifier of texts or of words on a frozen encoder; what comes back is its state at the best validation
    accuracy, for words the best entity F1.

    The accuracy is that on the validation split, on LOOK examples of it drawn by seed where it is larger.

    Cross-entropy, AdamW, learning rates that rise over the first tenth and fall to zero, gradients clipped to norm 1.
    Nothing is dropped out (see `build`), so files, config and seed determine the result on one machine.

    Args:
        encoder: left as it is; the tuned model shares its weights.
        progress: told after every step, with the best validation accuracy so far.

    Raises:
        UnsupportedError: the architecture does not take the method, or has no such site.
        TuningError: no room for the virtual tokens, or the loss left the finite numbers; for words, the package seqeval
            is not installed.
    """
    config = config or TuneConfig()
    tokenizer = limited_tokenizer(encoder, config)
    model: AnyClassifier
    measure = "F1" if isinstance(task, Tagging) else "accuracy"
    if isinstance(task, Tagging):
        model = build_tagger(encoder, task.labels, config)
        losses, look = _learn_words(model, tokenizer, task, config)
    else:
        model = build(encoder, task.labels, config)
        losses, look = _learn(model, tokenizer, task, config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    total = config.epochs * -(-len(task.train) // config.batch_size)
    total = min(total, config.max_steps or total)
    optimiser, schedule = _optimiser(model, config, total)
    best, kept, worse = (-1.0, 0.0), _copy(weights), 0
    for step in range(1, total + 1):
        loss = next(losses)
        if not bool(torch.isfinite(loss)):
            raise TuningError(f"expected a finite loss, got {loss.item()} at step {step}: try a lower learning rate")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's stub
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if step % -(-total // CHECKS) == 0 or step == total:
            reached = look()
            worse = 0 if reached[0] > best[0] else worse + 1
            if reached > best:
                best, kept = reached, _copy(weights)
        told = f"tuning: validation {measure} {best[0]:.1%}" if best[0] >= 0 else "tuning"
        progress(told, step / total)
        if worse == config.patience:
            progress(told, 1.0)
            break
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
    settle(model, config.method)
    model.requires_grad_(False)
    return TunedModel(model, tokenizer, task.labels, encoder, best[0])


def _learn(model: PeftModel, tokenizer: PreTrainedTokenizerFast, task: Task, config: TuneConfig) -> Learning:
    """Cross-entropy of batches, and the accuracy."""
    looked_at = _sample(task.validation, config.seed)
    batches = _batches(task.train, config.batch_size, random.Random(config.seed))
    losses = (
        functional.cross_entropy(logits_of(model, tokenizer, texts), wanted.to(model.device))
        for texts, wanted in batches
    )
    contents = [example.content for example in looked_at]
    return losses, lambda: _score(predict(model, tokenizer, contents), looked_at)


def _learn_words(model: PeftModel, tokenizer: PreTrainedTokenizerFast, task: Tagging, config: TuneConfig) -> Learning:
    """The same for words: cross-entropy at the first token of each, and entity F1."""
    looked_at = _sample(task.validation, config.seed)
    losses = tagger.losses(model, tokenizer, task.train, config.batch_size, random.Random(config.seed))
    return losses, lambda: tagger.score(model, tokenizer, task, looked_at)


def _optimiser(model: PeftModel, config: TuneConfig, total: int) -> tuple[AdamW, LambdaLR]:
    """AdamW with a learning rate for the adapter and one for the head, and their schedule over `total` steps."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    adapter = [weight for name, weight in trained if "prompt_encoder" in name or ".lora_" in name]
    head = [weight for name, weight in trained if "prompt_encoder" not in name and ".lora_" not in name]
    groups = [{"params": adapter, "lr": config.peak}, {"params": head, "lr": config.head_learning_rate}]
    optimiser = AdamW(groups, weight_decay=0.0)
    warm = max(1, round(_WARM_UP * total))
    return optimiser, LambdaLR(optimiser, lambda step: min((step + 1) / warm, (total - step) / max(1, total - warm)))


def _batches(examples: Sequence[Example], size: int, rng: random.Random) -> Iterator[tuple[list[Text], Tensor]]:
    """Batches without end, each example once an epoch. Texts of like length share a batch, so little is padding."""
    while True:
        order = rng.sample(examples, len(examples))
        epoch: list[list[Example]] = []
        for start in range(0, len(order), _BUCKET * size):
            bucket = _by_length(order[start : start + _BUCKET * size])
            epoch += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        rng.shuffle(epoch)
        for batch in epoch:
            yield [example.content for example in batch], torch.tensor([example.label for example in batch])


def _by_length(examples: Sequence[Example]) -> list[Example]:
    """From short to long, where long means long among examples of the same label: a label whose texts are all long
    (spam, say) would otherwise have batches to itself, from which nothing is learnt."""
    ranked: list[tuple[float, Example]] = []
    for label in sorted({example.label for example in examples}):
        same = sorted(
            (example for example in examples if example.label == label), key=lambda example: characters(example.content)
        )
        ranked += [((rank + 0.5) / len(same), example) for rank, example in enumerate(same)]
    return [example for _, example in sorted(ranked, key=lambda pair: pair[0])]


def _sample(examples: Sequence[T], seed: int) -> Sequence[T]:
    return examples if len(examples) <= LOOK else random.Random(seed).sample(examples, LOOK)


def _copy(weights: Sequence[Parameter]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


def _score(logits: Float[Tensor, "examples labels"], examples: Sequence[Example]) -> tuple[float, float]:
    """Accuracy, and minus the loss to break ties."""
    wanted = torch.tensor([example.label for example in examples])
    return (logits.argmax(1) == wanted).double().mean().item(), -functional.cross_entropy(logits, wanted).item()
