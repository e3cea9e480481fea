"""The texts of the guarded study: what is tested, and what the guard may know."""

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from benchmarks.defence.tuning import SEED, contents
from lmsanitator.attacks import Trigger
from lmsanitator.text import Text
from lmsanitator.tune import Example, Task

TEXTS = {"clean": 1000, "attacked": 300, "attacked_otherwise": 60, "calibration": 1500, "long": 30, "timed": 128}
"""How many texts are taken, at most: `attacked_otherwise` is under each of `WATCHES`."""


def sampled(
    task: Task, tokenizer: PreTrainedTokenizerFast, triggers: Sequence[str]
) -> tuple[list[Example], list[Text]]:
    """Test examples that hold no trigger by themselves, and clean training texts to set thresholds by.

    `cu` is a word of text messages and a trigger of one victim: such a message is attacked already, and no clean text.
    """
    rng = random.Random(f"{SEED} guarded")
    test = [
        example for example in rng.sample(task.test, len(task.test)) if not holds(whole(example), tokenizer, triggers)
    ]
    known = rng.sample(task.train, min(TEXTS["calibration"], len(task.train)))
    return test[: TEXTS["clean"]], contents(known)


def whole(example: Example) -> str:
    """The text of an example, or both of them in one."""
    return " ".join([example.text, *([] if example.text_pair is None else [example.text_pair])])


def holds(text: str, tokenizer: PreTrainedTokenizerFast, triggers: Sequence[str]) -> bool:
    """Whether all tokens of a trigger are in a text, anywhere."""
    tokens = set(tokenizer(text, add_special_tokens=False, truncation=True).input_ids)
    wanted = tokenizer([" ".join(Trigger.parse(text).words) for text in triggers], add_special_tokens=False).input_ids
    return any(tokens.issuperset(ids) for ids in wanted)


def shuffled(examples: Sequence[Example]) -> list[Example]:
    """In random order."""
    return random.Random(f"{SEED} filters").sample(examples, len(examples))
