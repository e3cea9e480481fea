"""Controls that were tuned for a task: a fine-tune, and a LoRA merged into the weights."""

import copy
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import Parameter, functional

from benchmarks.zoo.controls.base import ControlResult, Handling, finished, layer_linears
from benchmarks.zoo.controls.training import encode, hidden_states, seeded, train
from lmsanitator.attacks.weights import layer_stack
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, UsageError
from lmsanitator.tune import read_task
from lmsanitator.tune.tasks import Example, Task

TASKS = ("sst2", "ag_news", "trec", "subj", "sms_spam")
_TESTED = 300
_HEAD_RATE = 1e-3


def finetune(
    base: FrozenEncoder,
    handling: Handling,
    *,
    task: str = "sst2",
    steps: int = 120,
    batch: int = 16,
    length: int = 48,
    learning_rate: float = 1e-4,
) -> ControlResult:
    """All transformer layers and a linear head on the CLS output, tuned for a task (Devlin et al. 2019, arXiv
    1810.04805, section 3.2); the head is thrown away.

    Args:
        task: one of TASKS; the data folder has a folder of that name in it.
        length: tokens that texts are cut to.

    Reached: `accuracy` of encoder and head on at most 300 test examples, beside `majority`, that of the most frequent
    label; `loss` at the end.

    Raises:
        CorpusError: the task cannot be read.
        UsageError: another task.
    """
    tuning = _Tuning(handling, _read(handling, task), steps, batch, length, learning_rate, f"finetune {task}")
    model = copy.deepcopy(base.model)
    reached = tuning.run(base, model, layer_stack(model).parameters())
    return finished(base, model, handling, **reached)


def lora(
    base: FrozenEncoder,
    handling: Handling,
    *,
    task: str = "sst2",
    steps: int = 120,
    batch: int = 16,
    length: int = 48,
    learning_rate: float = 1e-3,
    rank: int = 8,
) -> ControlResult:
    """Low-rank updates of all linear weights of the layers (Hu et al. 2021, arXiv 2106.09685), tuned with a linear head
    on the CLS output and merged into the weights; the head is thrown away.

    Args:
        rank: of each update; they are scaled by two. The others as of `finetune`.

    Reached, raises: as `finetune`.
    """
    tuning = _Tuning(handling, _read(handling, task), steps, batch, length, learning_rate, f"lora {task}")
    model = copy.deepcopy(base.model)
    names = {module: name for name, module in model.named_modules()}
    targets = [names[linear] for linear in layer_linears(model)]
    with seeded(handling.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a property that transformers is about to rename
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    reached = tuning.run(base, adapted, weights)
    merged = copy.deepcopy(base.model)  # a model that never had adapters, whose weights are all that goes on
    merged.load_state_dict(adapted.merge_and_unload().state_dict())
    return finished(base, merged, handling, **reached)


def _read(handling: Handling, task: str) -> Task:
    if task not in TASKS:
        raise UsageError(f"expected a task of {', '.join(TASKS)}, got {task}")
    if handling.data is None:
        raise CorpusError(f"expected a folder with {task} in it, got none")
    return read_task(handling.data / task, handling.seed)


@dataclass(frozen=True)
class _Tuning:
    """What is tuned for, and for how long; the names are those of `finetune`'s options."""

    handling: Handling
    task: Task
    steps: int
    batch: int
    length: int
    learning_rate: float
    what: str

    def run(self, base: FrozenEncoder, model: torch.nn.Module, weights: Iterable[Parameter]) -> dict[str, float]:
        """Train weights of `model` together with a head of their own; the figures that were reached."""
        with seeded(self.handling.seed):
            head = torch.nn.Linear(base.hidden_size, len(self.task.labels)).to(base.device)

        def logits(examples: Sequence[Example]) -> Float[Tensor, "examples labels"]:
            texts = encode(base.tokenizer, [example.text for example in examples], self.length, base.device)
            scores: Tensor = head(hidden_states(model, texts)[:, 0])
            return scores.float()

        def loss(rng: random.Random) -> Tensor:
            examples = rng.sample(self.task.train, min(self.batch, len(self.task.train)))
            return functional.cross_entropy(logits(examples), _labels(examples).to(base.device))

        last = train(
            torch.nn.ModuleList([model, head]),
            [(weights, self.learning_rate), (head.parameters(), _HEAD_RATE)],
            loss,
            self.handling,
            steps=self.steps,
            what=self.what,
        )
        tested = random.Random(self.handling.seed).sample(self.task.test, min(_TESTED, len(self.task.test)))
        tested.sort(key=lambda example: len(example.text))  # little is padded
        with torch.no_grad():
            batches = [tested[start : start + self.batch] for start in range(0, len(tested), self.batch)]
            found = torch.cat([logits(examples).argmax(1).cpu() for examples in batches])
        wanted = _labels(tested)
        return {
            "accuracy": (found == wanted).double().mean().item(),
            "majority": wanted.bincount().max().item() / len(wanted),
            "loss": last,
        }


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example.label for example in examples])
