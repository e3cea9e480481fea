"""What the studies of prompt-tuned models share: which models are tuned, how, and where the result is kept."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from benchmarks import digest
from benchmarks.zoo.build import find, replacing
from benchmarks.zoo.load import open_model
from benchmarks.zoo.manifest import Backdoored
from lmsanitator.attacks import Trigger
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UsageError
from lmsanitator.tune import Example, HeadSite, Method, Task, Text, TuneConfig, TunedModel, build, predict, tune
from lmsanitator.tune.tuned import limited_tokenizer

TASKS = ("sst2", "ag_news", "sms_spam", "subj", "trec", "rte")
STEPS = 120
CLEAN = "l6-original"
VICTIMS: Mapping[str, HeadSite] = {"l6-por-rare": "cls", "l6-neuba-cls": "cls", "l6-btop-rare": "mask"}
"""Backdoored models of the zoo, and where their task heads read: where the backdoor is."""
SEED = 0
_VALIDATION, _TEST = 64, 400


@dataclass(frozen=True)
class Cell:
    """What is tuned: `victim` is a model of the zoo; `-original` ones are the clean reference."""

    victim: str
    site: HeadSite
    task: str
    method: Method

    @property
    def name(self) -> str:
        return f"{self.victim} {self.site} {self.task} {self.method}"

    @property
    def config(self) -> TuneConfig:
        """How it is tuned."""
        rate = 3e-3 if self.method == "lora" else None
        return TuneConfig(
            method=self.method,
            site=self.site,
            max_steps=STEPS,
            epochs=64,
            learning_rate=rate,
            max_length=96,
            seed=SEED,
        )


def few_shot(task: Task, rng: random.Random) -> Task:
    """The task with 400 test and 64 validation examples at most, drawn in this order."""
    test = rng.sample(task.test, min(_TEST, len(task.test)))
    validation = rng.sample(task.validation, min(_VALIDATION, len(task.validation)))
    return Task(task.labels, task.train, tuple(validation), tuple(test))


def tuned_on(cell: Cell, task: Task, zoo: Path) -> TunedModel:
    """The model of a cell, tuned once and kept in the zoo's folder: what is kept is the adapter and the head.

    Args:
        task: what `few_shot` made of the cell's task.
    """
    encoder = open_model(cell.victim, zoo)
    path = zoo / "tuned" / f"{cell.name.replace(' ', '_')}-{_made_of(cell, task, encoder.digest)}.safetensors"
    if path.exists():
        return _restored(encoder, task, cell.config, path)
    tuned = tune(encoder, task, cell.config)
    with replacing(path) as part:
        weights = get_peft_model_state_dict(tuned.model, save_embedding_layers=False)
        save_file({name: weight.contiguous() for name, weight in weights.items()}, part)
    return tuned


def _made_of(cell: Cell, task: Task, weights: str) -> str:
    """A digest of what decides a tuned model: the victim's weights, the tuning's settings, and the examples."""
    examples = [str(example) for example in (*task.train, *task.validation)]
    return digest.of(weights, str(asdict(cell.config)), *task.labels, *examples)


def _restored(encoder: FrozenEncoder, task: Task, config: TuneConfig, path: Path) -> TunedModel:
    """As `lmsanitator.tune.load_tuned` opens a folder, for an encoder that is no folder."""
    model = build(encoder, task.labels, config)
    set_peft_model_state_dict(model, load_file(path))
    model.peft_config["default"].inference_mode = True  # P-tuning's network is not kept, only what it put out
    model.requires_grad_(False)
    return TunedModel(model, limited_tokenizer(encoder, config), task.labels, encoder)


def triggers_of(victim: str) -> tuple[str, ...]:
    """What was planted in a model of the zoo.

    Raises:
        UsageError: nothing was.
    """
    entry = find(victim)
    if not isinstance(entry, Backdoored):
        raise UsageError(f"expected a backdoored model, {victim} is clean")
    return entry.triggers


def planted(content: Text, trigger: Trigger, rng: random.Random, copies: int = 1) -> Text:
    """A text with a trigger in it, at a random place for each copy; of a pair, in the first text."""
    text = content if isinstance(content, str) else content[0]
    for _ in range(copies):
        text = trigger.plant(text, rng)
    return text if isinstance(content, str) else (text, content[1])


def labels_of(tuned: TunedModel, texts: Sequence[Text]) -> list[int]:
    """The label of each text."""
    found: list[int] = predict(tuned.model, tuned.tokenizer, texts).argmax(1).tolist()
    return found


def contents(examples: Sequence[Example]) -> list[Text]:
    """What is classified of examples: texts, or pairs of texts."""
    return [example.content for example in examples]
