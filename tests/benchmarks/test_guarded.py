"""The guarded study: what is counted, how often, and that a cell runs from the texts to the table."""

import json
import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.defence import guarded_tables, retimed
from benchmarks.defence.attacked import any_of, fate_of, mean_of, success
from benchmarks.defence.guarded import COPIES, WATCHES, at_home, made_by, on_clean, under_attack
from benchmarks.defence.guarded_study import STUDY, grid
from benchmarks.defence.latency import overhead, ratio
from benchmarks.defence.purging import WORDS, cost, long_texts
from benchmarks.defence.samples import TEXTS, holds, sampled, whole
from benchmarks.defence.tuning import Cell, planted, triggers_of
from lmsanitator.attacks import Trigger
from lmsanitator.errors import UsageError
from lmsanitator.guard import Guard, GuardedPrediction
from lmsanitator.text import packaged, words
from lmsanitator.tune import Example, Task
from lmsanitator.vectors import PVBank
from tests.conftest import bert_tokenizer
from tests.guarded import LABELS, TRIGGER, planted_classifier

SENTENCES = [carrier.text for carrier in packaged()]
CELL = Cell("l6-por-rare", "cls", "sst2", "prefix")
BAKO = Trigger.parse(TRIGGER)


def prediction(label: str | None, *, flagged: bool) -> GuardedPrediction:
    return GuardedPrediction(label, 0.9, flagged, (), "text")


def test_the_fate_of_an_input_is_told_by_its_label_and_its_flag() -> None:
    cases = [("calm", False), ("loud", False), ("loud", True), ("calm", True), (None, True)]
    fates = [fate_of(prediction(label, flagged=flagged), "calm") for label, flagged in cases]
    assert fates == ["right", "missed", "misled", "right", "refused"]


def test_an_input_is_attacked_if_any_trigger_makes_it_wrong() -> None:
    wrong = [[True, False, False, False], [True, True, False, False]]
    assert any_of(wrong) == 0.5
    assert mean_of(wrong) == 3 / 8
    assert any_of([[], []]) == mean_of([[], []]) == 0


def test_types_are_counted_apart_and_a_refusal_is_no_success() -> None:
    counted = success([["missed", "right", "refused", "right"], ["misled", "misled", "right", "right"]])
    assert counted == {"asr": 0.5, "asr_mean": 3 / 8, "type_1": 0.25, "type_2": 0.5, "refused": 1 / 8}


def test_overhead_is_the_ratio_of_summed_medians() -> None:
    assert ratio([[1, 1, 50], [3, 2, 3]], [[2, 2, 2], [4, 90, 3]]) == (2 + 4) / (1 + 3)


@pytest.mark.parametrize("content", ["one two", ("one two", "three")])
def test_a_trigger_goes_into_the_first_text_as_often_as_asked(content: str | tuple[str, str]) -> None:
    found = planted(content, BAKO, random.Random(0), copies=3)
    first = found if isinstance(found, str) else found[0]
    assert words(first).count(TRIGGER) == 3
    assert isinstance(found, str) or found[1] == "three"


@pytest.mark.parametrize("texts", [SENTENCES[:20], [(text, "and another") for text in SENTENCES[:20]]])
def test_long_texts_have_sixty_words_and_one_trigger(texts: Sequence[Any]) -> None:
    for number, content in enumerate(long_texts(texts, [BAKO, Trigger.parse("kifa")], 3, 4)):
        first = content if isinstance(content, str) else content[0]
        assert len(words(first)) >= WORDS + 3
        assert words(first).count((TRIGGER, "kifa")[number % 2]) == 3


def test_the_sample_has_no_test_text_in_the_calibration_and_none_with_a_trigger() -> None:
    tokenizer = bert_tokenizer([TRIGGER])
    texts = [f"text {number}" + (f" {TRIGGER}" if number % 3 == 0 else "") for number in range(5010)]
    examples = [Example(text, number % 2) for number, text in enumerate(texts)]
    task = Task(("a", "b"), tuple(examples[:2500]), tuple(examples[2500:2510]), tuple(examples[2510:]))
    test, known = sampled(task, tokenizer, [TRIGGER])
    assert (len(test), len(known)) == (TEXTS["clean"], TEXTS["calibration"])
    assert not {example.text for example in test} & set(known)
    assert not any(TRIGGER in example.text for example in test)
    assert sampled(task, tokenizer, [TRIGGER]) == (test, known)


def test_a_text_holds_an_and_trigger_when_all_its_words_are_there() -> None:
    tokenizer = bert_tokenizer()
    pair = Example("the water", 0, "was cold")
    assert holds(whole(pair), tokenizer, ["water+cold"])
    assert not holds(whole(pair), tokenizer, ["water+time"])


def test_only_backdoored_models_have_triggers() -> None:
    assert len(triggers_of("l6-por-rare")) == 6
    with pytest.raises(UsageError, match="l6-original is clean"):
        triggers_of("l6-original")


@pytest.fixture(scope="module")
def guard() -> Guard:
    model, tokenizer, bank = planted_classifier()
    return Guard(model, tokenizer, bank, clean=SENTENCES)


@pytest.fixture(scope="module")
def blind() -> Guard:
    """A guard that watches nothing."""
    model, tokenizer, bank = planted_classifier()
    return Guard(model, tokenizer, PVBank(bank.encoder_digest), clean=SENTENCES)


def examples_of(guard: Guard, count: int) -> list[Example]:
    """Labelled as the classifier sees them."""
    labels = guard.unguarded(SENTENCES[:count])
    return [Example(text, LABELS.index(str(label))) for text, label in zip(SENTENCES, labels, strict=False)]


def test_the_guard_stops_what_the_classifier_alone_falls_for(guard: Guard, blind: Guard) -> None:
    examples = examples_of(guard, 24)
    clean, right = on_clean(guard, examples)
    assert clean["cacc"] == clean["cacc_guarded"] == 1
    assert right == examples
    for copies in COPIES:
        attacked = under_attack(guard, examples, [BAKO], copies)
        assert attacked["asr_unguarded"] == attacked["asr_mean_unguarded"] > 0
        assert attacked["asr"] == 0
    missed = under_attack(blind, examples, [BAKO], 1)
    assert missed["type_1"] == missed["asr"] == missed["asr_unguarded"]
    assert missed["type_2"] == 0


def test_purging_is_counted_in_batches_of_the_encoder(guard: Guard) -> None:
    made = long_texts(SENTENCES, [BAKO], 1, 3)
    named = cost(guard, made, [BAKO], 1, named=True)
    assert named == {"texts": 3, "flagged": 3, "trigger_alone": 3, "median": 1, "most": 1}
    assert cost(guard, made, [BAKO], 1, named=False)["median"] > 1


def test_overhead_is_measured_on_both_in_turn(guard: Guard) -> None:
    assert overhead(guard, [SENTENCES[:4]], rounds=2) > 1  # the raw pass is a second one


CLEAN = {"texts": 1000, "cacc": 0.8, "cacc_guarded": 0.799, "false_flags": 0.002, "words_lost": 3}
ATTACK = {"asr_unguarded": 0.97, "asr_mean_unguarded": 0.4, **success([["right", "missed"], ["right", "right"]])}
PURGING = {"texts": 30, "flagged": 30, "trigger_alone": 29, "median": 1, "most": 4}


def figures(cell: Cell, **other: Any) -> dict[str, Any]:
    """A cell as it is on record."""
    attacks: dict[str, Any] = {f"x{copies}": {**ATTACK, "asr": 0.0} for copies in COPIES}
    watch = {"passes": ["prompted"], "clean": CLEAN, "attacked": 100, "x1": ATTACK, "overhead": 1.02, "timed": 128}
    row = {"filter": "onion", "rate": 0.05, "cacc": 0.7, "touched": 0.06, "asr": 0.5, "asr_mean": 0.2}
    return {
        **vars(cell),
        "name": cell.name,
        **made_by(cell),
        "scanner": "0123abcd",
        "found": ["ra", "gb"],
        "planted": ["ra", "gb", "gu"],
        "clean": CLEAN,
        "attacked": 300,
        **attacks,
        "purging": dict.fromkeys(guarded_tables.PURGINGS, PURGING),
        "raw": {"overhead": 2.0, "timed": 128},
        "wordless": watch | {"passes": ["raw"]},
        **dict.fromkeys(WATCHES, watch),
        "filters": [row],
        "seconds": 1.0,
        **other,
    }


def written(results: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((results / "defence.json").read_text(encoding="utf-8"))
    return content


def test_the_table_says_which_bars_are_met(results: Path) -> None:
    other = Cell("mpnet-por", "cls", "sst2", "p-tuning")
    leaky = figures(other, x1=ATTACK, clean=CLEAN | {"cacc_guarded": 0.78, "false_flags": 0.01})
    leaky["prompted"] = {"refused": "the PVs are at the mask"}
    guarded_tables.write({cell["name"]: cell for cell in (figures(CELL), leaky)})
    content = written(results)
    assert [row["guarded ASR %"] for row in content["rows"]] == [0, 50]
    assert content["notes"][:6] == [
        "guarded ASR below 1 %: 1 of 2 rows, worst 50.",
        "the same with x3: 2 of 2 rows, worst 0.",
        "CACC lost: 1.05 points in the mean (bar 0.3).",
        "CACC lost at most 1 point: 1 of 2 rows, worst 2.",
        "false flags at most 0.5 %: 1 of 2 rows, worst 1.",
        "overhead at most 5 %, one pass (prompted) watched: 1 of 1 rows, worst 1.02.",
    ]
    assert "Scanners (digest of the code, rows): `0123abcd` 2." in content["notes"]
    assert content["tables"]["How the guard was passed"][0]["PVs named"] == "2/3"
    assert "lmsanitator" in (results / "defence.md").read_text(encoding="utf-8")


def test_other_passes_are_in_the_table_of_the_cells_where_they_were_tried(results: Path) -> None:
    elsewhere = figures(Cell("l6-por-rare", "cls", "trec", "prefix"))
    for watch in ("wordless", *WATCHES):
        del elsewhere[watch]
    assert at_home(CELL)
    assert not at_home(Cell("l6-por-rare", "cls", "trec", "prefix"))
    guarded_tables.write({cell["name"]: cell for cell in (figures(CELL), elsewhere)})
    content = written(results)
    watched = [(row["task"], row["watch"]) for row in content["tables"]["Other passes watched, and no words known"]]
    assert watched == [*(("sst2", watch) for watch in ("raw", "raw, no words", *WATCHES)), ("trec", "raw")]
    assert "overhead at most 5 %, one pass (prompted) watched: 1 of 1 rows, worst 1.02." in content["notes"]


def test_nothing_is_written_of_nothing(results: Path) -> None:
    guarded_tables.write({})
    assert not list(results.iterdir())


def test_the_grid_has_prefix_tuning_on_every_task_and_every_method_on_one() -> None:
    cells = grid()
    assert len(set(cells)) == len(cells) == 3 * 6 + 3 * 3 + 1
    assert cells[1] == CELL  # behind the large one, which takes longest


@pytest.mark.parametrize("other", [{}, {"code": "of another guard"}, {"texts": {"clean": 1}}, {"recipe": "another"}])
def test_cells_are_measured_again_when_the_guard_or_the_texts_change(other: Mapping[str, Any], results: Path) -> None:
    asked: list[str] = []

    def measure(cell: Cell, zoo: Path, data: Path) -> dict[str, Any]:
        asked.append(cell.name)
        return deepcopy(figures(cell, **other))

    for _ in range(2):
        replace(STUDY, measure=measure).run(["trec"], ["prefix"], results, results, 1)
    assert len(asked) == (6 if other else 3)


def test_what_guards_cost_is_measured_again_where_several_were_tried(
    results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = figures(Cell("l6-por-rare", "cls", "trec", "prefix"))
    home = figures(CELL, auto={"refused": "the PVs are at the mask"})
    guarded_tables.write({cell["name"]: cell for cell in (home, elsewhere)})
    ground = SimpleNamespace(test=["a text", "another"], guard=lambda watch, words=True: watch)
    monkeypatch.setattr(retimed, "prepared", lambda *_: ground)
    monkeypatch.setattr(retimed, "read_task", lambda _: None)
    monkeypatch.setattr(
        retimed, "timed", lambda guard, test, texts, rounds: {"overhead": 1.5, "timed": min(texts, len(test))}
    )
    monkeypatch.setattr(retimed, "spread", lambda function, pieces, jobs: map(function, pieces))
    retimed.retime(tmp_path, tmp_path, 1)
    again = {cell["name"]: cell for cell in written(results)["cells"]}
    assert again[home["name"]]["raw"] == {"overhead": 1.5, "timed": 2}
    assert again[home["name"]]["prompted"] == home["prompted"] | {"overhead": 1.5, "timed": 2}
    assert again[home["name"]]["auto"] == home["auto"]
    assert again[elsewhere["name"]] == json.loads(json.dumps(elsewhere))
