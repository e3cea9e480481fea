"""Tasks that label every word of a sentence, as named entity recognition does: from a local folder, in BIO."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsanitator.errors import CorpusError
from lmsanitator.tune.records import read_records
from lmsanitator.tune.tasks import SPLITS, Task, read_task

OUTSIDE = "O"
"""The label of a word that belongs to no entity."""
_BIO = re.compile(r"O|[BI]-.+")
_FIELDS = "tokens and ner_tags"


@dataclass(frozen=True)
class Tagged:
    """The words of a sentence, and for each the index of its label in `Tagging.labels`."""

    words: tuple[str, ...]
    tags: tuple[int, ...]


@dataclass(frozen=True)
class Tagging:
    """A task of labelling words.

    Args:
        labels: the label names: `O`, `B-` and `I-` with a type behind it.

    Raises:
        CorpusError: labels that are not BIO, an empty split, a sentence without words or without a label for each.
    """

    labels: tuple[str, ...]
    train: tuple[Tagged, ...]
    validation: tuple[Tagged, ...]
    test: tuple[Tagged, ...]

    def __post_init__(self) -> None:
        check_bio(self.labels)
        for name in SPLITS:
            sentences: tuple[Tagged, ...] = getattr(self, name)
            if not sentences:
                raise CorpusError(f"expected sentences in the {name} split, got none")
            for sentence in sentences:
                if not sentence.words or len(sentence.words) != len(sentence.tags):
                    raise CorpusError(
                        f"expected words and a label for each in {name}, "
                        f"got {len(sentence.words)} words and {len(sentence.tags)} labels"
                    )
                if not all(0 <= tag < len(self.labels) for tag in sentence.tags):
                    raise CorpusError(f"expected labels below {len(self.labels)} in {name}, got {sentence.tags}")

    def names(self, sentence: Tagged) -> list[str]:
        """The label names of a sentence's words."""
        return [self.labels[tag] for tag in sentence.tags]


def check_bio(labels: Sequence[str]) -> None:
    """Raise CorpusError unless these are different labels of the BIO scheme, `O` among them."""
    odd = [label for label in labels if not _BIO.fullmatch(label)]
    if odd or OUTSIDE not in labels or len(labels) < 2 or len(set(labels)) < len(labels):
        shown = ", ".join(odd or labels) or "none"
        raise CorpusError(f"expected the label O and different labels that begin with B- or I-, got {shown:.120}")


def open_task(source: str | Path, seed: int = 0) -> Task | Tagging:
    """`read_tagging` for a folder whose first training example has `tokens`, `read_task` for any other source."""
    path = Path(source) / "train.jsonl"
    if not path.is_file():
        return read_task(source, seed)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return read_task(source, seed)  # which says what is wrong, and where
    return read_tagging(source, seed) if isinstance(record, dict) and "tokens" in record else read_task(source, seed)


def read_tagging(source: str | Path, seed: int = 0) -> Tagging:
    """Read a task of labelled words.

    Args:
        source: a folder with train.jsonl and, where there are any, validation.jsonl and test.jsonl, each line an
            object with `tokens`, a list of words, and `ner_tags`, a BIO label for each.
        seed: of the tenth of the training sentences that stands in for a missing validation split. A missing test
            split falls back to the validation split.

    Raises:
        CorpusError: what was expected and what came, with file and line.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise CorpusError(f"expected a folder with labelled words, found none: {source}")
    rows = {
        name: [
            (*_row(record, where), where)
            for record, where in read_records(folder / f"{name}.jsonl", _FIELDS, required=name == "train")
        ]
        for name in SPLITS
    }
    found = {tag for _, tags, _ in rows["train"] for tag in tags}
    labels = (OUTSIDE, *sorted(found - {OUTSIDE}))
    index = {label: number for number, label in enumerate(labels)}
    splits: dict[str, tuple[Tagged, ...]] = {}
    for name, sentences in rows.items():
        for _, tags, where in sentences:
            unknown = next((tag for tag in tags if tag not in index), None)
            if unknown is not None:
                raise CorpusError(f"expected a label of the training split in {where}, got {unknown!r}")
        splits[name] = tuple(Tagged(words, tuple(index[tag] for tag in tags)) for words, tags, _ in sentences)
    train, validation = splits["train"], splits["validation"]
    if not validation:
        mixed = random.Random(seed).sample(train, len(train))
        held_out = round(0.1 * len(mixed))
        if not held_out:
            raise CorpusError(f"expected a validation split, or more than {len(train)} sentences to take it from")
        validation, train = tuple(mixed[:held_out]), tuple(mixed[held_out:])
    return Tagging(labels, train, validation, splits["test"] or validation)


def _row(record: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for name in ("tokens", "ner_tags"):
        value = record.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise CorpusError(f"expected the fields {_FIELDS}, two lists of strings, in {where}, got {value!r:.60}")
    words, tags = record["tokens"], record["ner_tags"]
    if len(words) != len(tags):
        raise CorpusError(f"expected a label for each word in {where}, got {len(words)} words and {len(tags)} labels")
    return tuple(words), tuple(tags)
