"""Labelled tasks: the packaged topics, a local folder, or a Hugging Face dataset."""

import importlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lmsanitator.errors import CorpusError
from lmsanitator.text import Text, packaged
from lmsanitator.tune.records import read_records

SPLITS = ("train", "validation", "test")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)
_SECOND = ("text_pair", "sentence2", "hypothesis")


@dataclass(frozen=True)
class Example:
    """A text, or a pair of texts, and the index of its label in `Task.labels`."""

    text: str
    label: int
    text_pair: str | None = None

    @property
    def content(self) -> Text:
        """What is classified."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class Task:
    """A classification task.

    Args:
        labels: the label names; an example's label is an index into them.

    Raises:
        CorpusError: fewer than two labels, an empty split, an example with a label there is not, or pairs of texts
            among single ones.
    """

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise CorpusError(f"expected two or more different labels, got {', '.join(self.labels) or 'none'}")
        for name in SPLITS:
            examples: tuple[Example, ...] = getattr(self, name)
            if not examples:
                raise CorpusError(f"expected examples in the {name} split, got none")
            for example in examples:
                if not 0 <= example.label < len(self.labels):
                    raise CorpusError(f"expected labels below {len(self.labels)} in {name}, got {example.label}")
                if (example.text_pair is None) != (self.train[0].text_pair is None):
                    raise CorpusError(
                        f"expected pairs of texts throughout or nowhere, {name} has {example.content!r:.60}"
                    )


class _Row(NamedTuple):
    """A text with its label as the source gives it, and where that was, for error messages."""

    text: str
    label: int | str
    where: str
    text_pair: str | None


def packaged_topics(seed: int = 0) -> Task:
    """Name the topic of a sentence: six topics, the package's own English sentences, split 70/10/20 by seed."""
    carriers = packaged("en")
    labels = tuple(sorted({carrier.topic for carrier in carriers if carrier.topic is not None}))
    examples = [Example(carrier.text, labels.index(carrier.topic)) for carrier in carriers if carrier.topic is not None]
    return Task(labels, *stratify(examples, (0.1, 0.2), seed))


def stratify(examples: Sequence[Example], shares: Sequence[float], seed: int) -> tuple[tuple[Example, ...], ...]:
    """Split examples by seed, each label alike: what is left over first, then one part for each share."""
    rng = random.Random(seed)
    parts: list[list[Example]] = [[] for _ in range(len(shares) + 1)]
    for label in sorted({example.label for example in examples}):
        rest = [example for example in examples if example.label == label]
        rng.shuffle(rest)
        counts = [round(share * len(rest)) for share in shares]
        for part, count in zip(parts[1:], counts, strict=True):
            part += rest[:count]
            del rest[:count]
        parts[0] += rest
    return tuple(tuple(part) for part in parts)


def read_task(source: str | Path, seed: int = 0) -> Task:
    """Read a task of texts, or pairs of texts, with one label each, an integer or a string.

    Args:
        source: a folder with train.jsonl and, where there are any, validation.jsonl and test.jsonl, each line an
            object with `text`, `label` and, for pairs, `text_pair` (or `sentence2` or `hypothesis`); or a Hugging Face
            dataset id (`org/name`, `org/name@revision`) with columns of these names, which needs the `datasets`
            package.
        seed: of the tenth of the training examples that stands in for a missing validation split. A missing test
            split falls back to the validation split.

    Raises:
        CorpusError: what was expected and what came, with file and line.
    """
    folder = Path(source)
    if folder.is_dir():
        return _assemble(
            {
                name: [
                    _row(record, where)
                    for record, where in read_records(folder / f"{name}.jsonl", "text and label", name == "train")
                ]
                for name in SPLITS
            },
            seed,
        )
    if folder.exists():
        raise CorpusError(f"expected a task folder or a Hugging Face dataset id, got a file: {source}")
    if not _HUB_ID.fullmatch(str(source)):
        raise CorpusError(f"expected a task folder or a Hugging Face dataset id (org/name), found neither: {source}")
    splits, names = _read_hub(str(source))
    return _assemble(splits, seed, names)


def _row(record: Mapping[str, Any], where: str) -> _Row:
    for name in ("text", "label"):
        if name not in record:
            raise CorpusError(f"expected the fields text and label in {where}, got {', '.join(record) or 'none'}")
    label, second = record["label"], next((name for name in _SECOND if name in record), None)
    text = _text(record["text"], where)
    pair = _text(record[second], where) if second else None
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise CorpusError(f"expected an integer or a string as label in {where}, got {label!r:.60}")
    return _Row(text, label, where, pair)


def _text(given: object, where: str) -> str:
    if not isinstance(given, str) or not given.strip():
        raise CorpusError(f"expected a text that is not empty in {where}, got {given!r:.60}")
    return given.strip()


def _read_hub(source: str) -> tuple[dict[str, list[_Row]], list[str] | None]:
    """The splits of a hub dataset and, where it declares them, the names of its integer labels."""
    try:
        datasets = importlib.import_module("datasets")  # optional: only those who name a dataset id need it
    except ImportError as error:
        raise CorpusError(
            f"expected the datasets package to fetch {source} (pip install datasets), it is not installed"
        ) from error
    if int(datasets.__version__.split(".")[0]) < 4:  # older ones may run a loading script that comes with the data
        raise CorpusError(f"expected datasets 4 or newer to fetch {source}, got {datasets.__version__}")
    repo, _, revision = source.partition("@")
    try:
        loaded = datasets.load_dataset(repo, revision=revision or None)
    except Exception as error:  # network, hub, parser: each raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CorpusError(f"expected dataset {source} on the hub, could not load it: {reason:.300}") from error
    if "train" not in loaded:
        raise CorpusError(f"expected a train split in {source}, got {', '.join(loaded) or 'none'}")
    names = getattr(loaded["train"].features.get("label"), "names", None)
    splits = {name: list(_hub_rows(loaded[name], f"{source}, {name}")) for name in SPLITS if name in loaded}
    return splits, names


def _hub_rows(dataset: Iterable[Mapping[str, Any]], where: str) -> Iterator[_Row]:
    for number, record in enumerate(dataset, 1):
        yield _row(record, f"{where} row {number}")


def _assemble(splits: Mapping[str, Sequence[_Row]], seed: int, names: Sequence[str] | None = None) -> Task:
    """Number the labels of the training split (integers by value, strings by alphabet) and fill missing splits."""
    train_rows = splits["train"]
    kinds = {type(row.label) for row in train_rows}
    if len(kinds) > 1:
        odd = next(row for row in train_rows if type(row.label) is not type(train_rows[0].label))
        raise CorpusError(f"expected labels of one kind, {odd.where} has {odd.label!r} after {train_rows[0].label!r}")
    values: Sequence[Any] = range(len(names)) if names else sorted({row.label for row in train_rows})
    index = {value: number for number, value in enumerate(values)}
    found: dict[str, tuple[Example, ...]] = {}
    for name, rows in splits.items():
        for row in rows:
            if row.label not in index:
                raise CorpusError(f"expected a label of the training split in {row.where}, got {row.label!r}")
        found[name] = tuple(Example(row.text, index[row.label], row.text_pair) for row in rows)
    train, validation = found["train"], found.get("validation", ())
    if not validation:
        train, validation = stratify(train, (0.1,), seed)
        if not validation:
            raise CorpusError(f"expected a validation split, or more than {len(train)} examples to take it from")
    labels = tuple(names) if names else tuple(str(value) for value in values)
    return Task(labels, train, validation, found.get("test", ()) or validation)
