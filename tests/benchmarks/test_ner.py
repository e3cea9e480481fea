"""The benchmark of entity recognition: what is attacked, what is counted, and that a run goes on where it was."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import benchmarks.ner
import benchmarks.record
from lmsanitator.attacks import Trigger
from lmsanitator.guard import GuardedTags
from lmsanitator.tune import Tagged

FIGURES = {
    "f1_clean": 0.8, "f1_clean_guarded": 0.8, "f1_attacked": 0.1, "f1_attacked_guarded": 0.79, "false_flags": 0.0,
    "missed": 0.0, "refused": 0.0, "exact": 1.0, "tested": 4, "watched": 4, "seconds": 1.0, "left_out": 3,
}  # fmt: skip


@pytest.mark.parametrize("text", ["gu", "old lamp"])
def test_a_trigger_stands_between_words_and_is_labelled_outside(text: str) -> None:
    sentence = Tagged(("New", "York", "is", "big"), (1, 2, 0, 0))
    count = len(text.split())
    seen: set[int] = set()
    for seed in range(40):
        planted, places = benchmarks.ner._plant(sentence, Trigger.parse(text), random.Random(seed))
        assert [planted.words[at] for at in places] == text.split()
        assert {planted.tags[at] for at in places} == {0}
        kept = [at for at in range(4 + count) if at not in places]
        assert tuple(planted.words[at] for at in kept) == sentence.words
        assert tuple(planted.tags[at] for at in kept) == sentence.tags
        seen.add(places[0])
    assert seen == set(range(5))


def test_a_sentence_without_labels_counts_as_one_without_entities() -> None:
    assert benchmarks.ner._labels(GuardedTags(("a", "b"), None, None, True)) == ["O", "O"]
    assert benchmarks.ner._labels(GuardedTags(("a",), ("B-x",), (1.0,), False)) == ("B-x",)


def test_a_run_measures_what_is_missing_and_scans_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[Any] = []
    asked: list[str] = []

    def scan(*given: Any) -> Any:
        scans.append(given)
        return SimpleNamespace(verdict="backdoored", bank=[1, 2])

    def measure(victim: str, name: str, *rest: Any) -> dict[str, Any]:
        asked.append(name)
        return {"task": name, **FIGURES}

    monkeypatch.setattr(benchmarks.record, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmarks.record, "_module", lambda: "benchmarks.ner")
    monkeypatch.setattr(benchmarks.ner, "open_model", lambda *given: None)
    monkeypatch.setattr(benchmarks.ner, "scan", scan)
    monkeypatch.setattr(benchmarks.ner, "measure", measure)
    benchmarks.ner.study("l6-por-tokens", ["conll04"], tmp_path, tmp_path)
    benchmarks.ner.study("l6-por-tokens", benchmarks.ner.TASKS, tmp_path, tmp_path)
    benchmarks.ner.study("l6-por-tokens", benchmarks.ner.TASKS, tmp_path, tmp_path)
    assert (asked, len(scans)) == (["conll04", "wnut17"], 2)
    written = json.loads((tmp_path / "ner.json").read_text(encoding="utf-8"))
    assert [row["task"] for row in written["rows"]] == ["conll04", "wnut17"]
    assert "in 2 of 2 tasks" in written["notes"][0]
    monkeypatch.setattr(benchmarks.ner, "STEPS", 7)
    benchmarks.ner.study("l6-por-tokens", ["wnut17"], tmp_path, tmp_path)
    assert asked[2:] == ["wnut17"], "what was measured in another way is measured again"
