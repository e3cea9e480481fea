import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmsanitator.errors import CorpusError
from lmsanitator.text import packaged
from lmsanitator.tune import Example, Task, packaged_topics, read_task

TRAIN = [{"text": f"text {index}", "label": index % 2} for index in range(20)]


def write(folder: Path, **splits: list[Any]) -> Path:
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_packaged_topics_are_split_alike_for_each_label_and_by_seed() -> None:
    task = packaged_topics(seed=3)
    sizes = [len(split) for split in (task.train, task.validation, task.test)]
    assert len(task.labels) == 6
    assert sum(sizes) == len(packaged("en"))
    assert [round(size / sum(sizes), 2) for size in sizes] == [0.7, 0.1, 0.2]
    counts = Counter(example.label for example in task.test)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert not {example.text for example in task.train} & {example.text for example in task.test}
    assert packaged_topics(seed=3) == task
    assert packaged_topics(seed=4) != task


def test_a_folder_with_three_splits_is_read_as_it_is(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, train=TRAIN, validation=TRAIN[:2], test=TRAIN[2:5]))
    assert task.labels == ("0", "1")
    assert task.train[1] == Example("text 1", 1)
    assert [len(task.train), len(task.validation), len(task.test)] == [20, 2, 3]


def test_string_labels_are_numbered_by_alphabet_and_integers_by_value(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "spam"}, {"text": "b", "label": "ham"}]
    task = read_task(write(tmp_path, train=rows, validation=rows))
    assert task.labels == ("ham", "spam")
    assert [example.label for example in task.train] == [1, 0]
    numbered = [{"text": "a", "label": 10}, {"text": "b", "label": 9}]
    assert read_task(write(tmp_path, train=numbered, validation=numbered)).labels == ("9", "10")


def test_a_missing_validation_split_is_taken_off_train_and_stands_in_for_test(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, train=TRAIN))
    assert [len(task.train), len(task.validation)] == [18, 2]
    assert Counter(example.label for example in task.validation) == {0: 1, 1: 1}
    assert task.test == task.validation
    assert not set(task.train) & set(task.validation)
    assert read_task(tmp_path, seed=0) == task


def test_line_separators_inside_json_strings_and_a_byte_order_mark_are_no_trouble(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028two", "label": 0}, {"text": "three", "label": 1}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8-sig", newline="")
    write(tmp_path, validation=rows)
    assert [example.text for example in read_task(tmp_path).train] == ["one\u2028two", "three"]


GOOD = b'{"text": "a", "label": 0}\n'


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        (b"{text: a}", "expected JSON in .*train.jsonl, line 2"),
        (b"[" * 100_000, "expected JSON in .*train.jsonl, line 2"),
        (b"[1]", "expected an object with text and label in .*line 2"),
        (b'{"text": "b"}', "expected the fields text and label in .*line 2, got text"),
        (b'{"text": 5, "label": 1}', "expected a text that is not empty in .*line 2, got 5"),
        (b'{"text": "  ", "label": 1}', "expected a text that is not empty in .*line 2"),
        (b'{"text": "b", "label": 0.5}', "expected an integer or a string as label in .*line 2, got 0.5"),
        (b'{"text": "b", "label": true}', "expected an integer or a string as label in .*line 2, got True"),
        (b'{"text": "b", "label": ""}', "expected an integer or a string as label in .*line 2"),
        (b'{"text": "b", "label": "one"}', "expected labels of one kind, .*line 2 has 'one' after 0"),
        (b'{"text": "\xff", "label": 1}', "expected UTF-8 in .*train.jsonl, line 2 is not"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, second_line: bytes, message: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(GOOD + second_line + b"\n")
    with pytest.raises(CorpusError, match=message):
        read_task(tmp_path)


def test_a_label_that_train_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path, train=TRAIN, test=[{"text": "a", "label": 0}, {"text": "b", "label": 7}])
    with pytest.raises(CorpusError, match=r"expected a label of the training split in .*test.jsonl, line 2, got 7"):
        read_task(tmp_path)


@pytest.mark.parametrize("second", ["text_pair", "sentence2", "hypothesis"])
def test_pairs_of_texts_are_read_under_any_of_their_names(tmp_path: Path, second: str) -> None:
    rows = [{"text": "a", second: " b ", "label": index % 2} for index in range(20)]
    task = read_task(write(tmp_path, train=rows))
    assert task.train[0].content == ("a", "b")
    assert {example.text_pair for example in task.train + task.validation} == {"b"}


def test_a_second_text_must_be_one_and_be_there_throughout(tmp_path: Path) -> None:
    write(tmp_path, train=[{"text": "a", "text_pair": "", "label": 0}])
    with pytest.raises(CorpusError, match=r"expected a text that is not empty in .*line 1, got ''"):
        read_task(tmp_path)
    write(tmp_path, train=[{"text": "a", "text_pair": "b", "label": 0}, {"text": "a", "label": 1}] * 10)
    with pytest.raises(CorpusError, match="expected pairs of texts throughout or nowhere, train has 'a'"):
        read_task(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected examples in .*train.jsonl, found none"),
        (GOOD.decode() * 3, "expected a validation split, or more than 3 examples"),
        (GOOD.decode() * 20, "expected two or more different labels, got 0"),
    ],
)
def test_data_that_is_no_task_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_task(tmp_path)


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"could not read .*train.jsonl"):
        read_task(tmp_path)
    with pytest.raises(CorpusError, match="got a file"):
        read_task(Path(__file__))
    with pytest.raises(CorpusError, match="found neither: no such thing"):
        read_task("no such thing")


def test_examples_must_have_a_label_of_the_task() -> None:
    with pytest.raises(CorpusError, match="expected labels below 2 in test, got 2"):
        Task(("a", "b"), (Example("x", 0),), (Example("x", 1),), (Example("x", 2),))


class Split(list[dict[str, Any]]):
    """What matters of a datasets.Dataset."""

    def __init__(self, rows: list[dict[str, Any]], names: list[str] | None = None) -> None:
        super().__init__(rows)
        self.features = {"label": SimpleNamespace(names=names) if names else SimpleNamespace()}


def fake_datasets(monkeypatch: pytest.MonkeyPatch, loaded: Any, version: str = "4.1.0") -> list[Any]:
    calls: list[Any] = []

    def load_dataset(repo: str, revision: str | None = None) -> Any:
        calls.append((repo, revision))
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, __version__=version))
    return calls


def test_a_hub_dataset_brings_its_label_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["world", "sports", "never seen"]
    calls = fake_datasets(monkeypatch, {"train": Split(TRAIN, names), "test": Split(TRAIN[:1], names)})
    task = read_task("someone/news@main")
    assert calls == [("someone/news", "main")]
    assert task.labels == tuple(names)
    assert task.test == (Example("text 0", 0),)
    assert len(task.validation) == 2


@pytest.mark.parametrize(
    ("loaded", "version", "message"),
    [
        (FileNotFoundError("no such repository\nmore"), "4.0.0", "could not load it: no such repository$"),
        ({"test": Split(TRAIN)}, "4.0.0", "expected a train split in someone/news, got test"),
        ({"train": Split([{"sentence": "a", "label": 0}])}, "4.0.0", "news, train row 1, got sentence, label"),
        ({"train": Split(TRAIN)}, "3.6.0", "expected datasets 4 or newer to fetch someone/news, got 3.6.0"),
    ],
)
def test_hub_datasets_that_cannot_be_used_say_why(
    monkeypatch: pytest.MonkeyPatch, loaded: Any, version: str, message: str
) -> None:
    fake_datasets(monkeypatch, loaded, version)
    with pytest.raises(CorpusError, match=message):
        read_task("someone/news")


def test_a_hub_dataset_needs_the_datasets_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"pip install datasets\), it is not installed"):
        read_task("someone/news")
