"""What scans of the zoo add up to, counted by hand; what naming a trigger means; and that runs resume."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from benchmarks import detection, record
from benchmarks import detection_tables as tables
from benchmarks.detection import planted
from benchmarks.detection_summary import clopper_pearson, figures, right, scan_score
from lmsanitator.detect.result import Effort
from lmsanitator.errors import UsageError
from lmsanitator.text import words


def bad(name: str, verdict: str, named: str = "", **more: Any) -> dict[str, Any]:
    """A row of a backdoored model; a letter of `named` is a trigger of one word that was named (y) or not (n)."""
    triggers = [{"trigger": f"t{at}", "words": 1, "named": it == "y", "one_more": False} for at, it in enumerate(named)]
    return {
        "id": name,
        "half": "report",
        "backdoored": True,
        "recipe": "por",
        "kind": "rare",
        "site": "cls",
        "pv": "block",
        "verdict": verdict,
        "p": 1e-9 if verdict == "backdoored" else 0.5,
        "found": ["t0"] if verdict == "backdoored" else [],
        "planted": triggers,
        "pvs": {"recalled": named.count("y"), "planted": len(named)},
        "s": 10.0,
        "tokens": 100,
        "effort": "standard",
        "precision": "fp32",
        "sha256": name,
        **more,
    }


def clean(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    row = bad(name, verdict) | {"backdoored": False, "recipe": "prune", "kind": "-", "site": "-", "pv": None}
    return row | {"s": 30.0, "tokens": 300} | more


ROWS = [
    bad("easy", "backdoored", "yyn"),
    bad("hard", "clean", "nn", recipe="neuba", kind="common"),
    bad("odd", "inconclusive", "n", recipe="uor", pv=None, pvs={"recalled": 0, "planted": 3}),
    clean("plain", "clean"),
    clean("framed", "backdoored"),
    clean("doubtful", "inconclusive"),
]


def test_accuracy_counts_inconclusive_as_wrong_for_both() -> None:
    assert [row["id"] for row in ROWS if right(row)] == ["easy", "plain"]
    counted = figures(ROWS)
    assert counted["right"] == [2, 6]
    assert counted["called"] == [1, 3]
    assert counted["accused"] == [1, 3]
    assert counted["inconclusive"] == [2, 6]


def test_vectors_and_triggers_of_missed_models_count_as_missed() -> None:
    counted = figures(ROWS)
    assert counted["pvs"] == {"together": [2, 5], "por": [2, 3], "neuba": [0, 2], "btop": [0, 0]}  # uor is none of them
    assert counted["named"] == {"one word": [2, 6], "two words": [0, 0], "more words": [0, 0]}
    assert counted["working"] == [1, 3]
    assert counted["seconds"] == [20, 30]
    assert counted["tokens"] == [200, 300]


def test_triggers_are_counted_by_their_words() -> None:
    lengths = [(1, True, False), (2, False, True), (2, True, False), (3, False, True), (5, False, False)]
    triggers = [dict(zip(("words", "named", "one_more"), it, strict=True)) | {"trigger": "t"} for it in lengths]
    counted = figures([bad("m", "backdoored", planted=triggers)])
    assert counted["named"] == {"one word": [1, 1], "two words": [1, 2], "more words": [0, 2]}
    assert counted["one_more"] == {"one word": [0, 1], "two words": [1, 2], "more words": [1, 2]}


@pytest.mark.parametrize("rows", [[], ROWS[:3], ROWS[3:]], ids=["none", "backdoored alone", "clean alone"])
def test_what_was_not_measured_is_a_dash(rows: Sequence[Mapping[str, Any]]) -> None:
    cells = {
        line["figure"]: line["report"] for line in tables.overview({"choose": figures([]), "report": figures(rows)})
    }
    kinds = {row["backdoored"] for row in rows}
    assert (cells["backdoored models called so"] == "-") == (True not in kinds)
    assert (cells["clean models accused"] == "-") == (False not in kinds)
    assert (cells["clean models accused, 95 % interval"] == "-") == (False not in kinds)
    assert (cells["accuracy, all models"] == "-") == (not rows)
    assert (cells["seconds, mean and most"] == "-") == (not rows)
    assert all(line["choose"] == "-" for line in tables.overview({"choose": figures([])}))


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    assert clopper_pearson(0, 13) == [0.0, pytest.approx(1 - 0.025 ** (1 / 13))]
    assert clopper_pearson(13, 13) == [pytest.approx(0.025 ** (1 / 13)), 1.0]
    assert clopper_pearson(0, 0) == [0.0, 1.0]
    low, high = clopper_pearson(2, 10)
    assert stats.binom.sf(1, 10, low) == pytest.approx(0.025)
    assert stats.binom.cdf(2, 10, high) == pytest.approx(0.025)


def test_recall_by_attack_and_by_kind_leaves_clean_models_out() -> None:
    by_attack = {row["attack"]: row for row in tables.recall_by(ROWS, "recipe", "attack")}
    assert list(by_attack) == ["por", "neuba", "uor"]
    assert by_attack["por"]["called backdoored"] == "1 of 1 (100.0%)"
    assert by_attack["por"]["triggers named"] == "2 of 3 (66.7%)"
    assert by_attack["uor"]["inconclusive"] == 1
    by_kind = {row["trigger kind"]: row for row in tables.recall_by(ROWS, "kind", "trigger kind")}
    assert by_kind["rare"]["called backdoored"] == "1 of 2 (50.0%)"
    assert by_kind["common"]["a trigger that works"] == "0 of 1 (0.0%)"


def test_what_was_called_wrong_is_said_in_words() -> None:
    said = {row["model"]: row for row in tables.missed(ROWS)}
    assert list(said) == ["hard", "odd", "framed", "doubtful"]
    assert said["hard"]["what it is"] == "neuba at cls, common triggers (t0, t1), block vectors"
    assert said["odd"]["what it is"] == "uor at cls, rare triggers (t0)"
    assert said["framed"]["what it is"] == "clean, prune"
    assert [(row["model"], row["not named"]) for row in tables.unnamed(ROWS)] == [("easy", "t2")]


@pytest.mark.parametrize(
    ("trigger", "found", "named", "one_more"),
    [
        ("cf", ["cf"], True, False),
        ("cf", ["CF"], True, False),
        ("cf", ["mn", "cf tq"], False, True),
        ("cf", ["cf mn tq"], False, False),
        ("cf", ["cf", "cf tq"], True, False),
        ("cf", [None], False, False),
        ("brimming", ["brim"], False, False),
        ("old lamp", ["lamp old"], True, False),
        ("old lamp", ["lamp", "old"], False, False),
        ("lamp+river", ["river lamp"], True, False),
        ("lamp+river", ["river a lamp"], False, True),
        ("lamp+river", ["lamp"], False, False),
        ("to the sea and the sky", ["the sky and sea to"], True, False),
        ("well-known", ["well-known"], True, False),
        ("永", ["永"], True, False),
    ],
)
def test_a_trigger_is_named_by_all_of_its_words_and_no_other(
    trigger: str, found: list[str | None], named: bool, one_more: bool
) -> None:
    (row,) = planted([trigger], found)
    assert (row["named"], row["one_more"]) == (named, one_more)
    assert row["words"] == len(words(trigger.replace("+", " ")))


def test_the_score_of_a_scan_grows_as_its_p_value_falls_and_stays_finite() -> None:
    assert [scan_score(p) for p in (1.0, 0.01, 1e-300, 0.0)] == [0.0, 2.0, 300.0, 300.0]


def test_the_scanner_stands_beside_the_baselines_on_the_report_half_alone() -> None:
    def score(half: str, backdoored: bool, value: float) -> dict[str, Any]:
        row = {"baseline": "b", "half": half, "backdoored": backdoored, "score": value}
        return row | {"seconds": 1.0, "tokens": 5}

    scores = [score("choose", True, 3), score("choose", False, 1), score("report", True, 4), score("report", False, 3)]
    ours, theirs = tables.beside([*ROWS, bad("other half", "clean", half="choose")], scores)
    assert (ours["models"], ours["caught"], ours["accused"]) == (6, "1 of 3 (33.3%)", "1 of 3 (33.3%)")
    assert ours["balanced accuracy"] == 0.5
    assert (theirs["models"], theirs["AUC"], theirs["balanced accuracy"]) == (2, 1.0, 0.5)
    assert tables.beside(ROWS, []) == tables.beside([], scores) == []
    assert tables.beside(ROWS[:3], scores)[0]["AUC"] == "-"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of its own, and scans that are done at once and always right."""

    def at_once(function: Callable[[Any], Any], pieces: Sequence[Any], jobs: int) -> Iterator[Any]:
        return map(function, pieces)

    def examine(model: Mapping[str, Any], zoo: Path, effort: str, *, reference: bool) -> dict[str, Any]:
        made = bad(model["id"], "backdoored", "y") if "attack" in model else clean(model["id"], "clean")
        return (
            made
            | {"half": model["half"], "sha256": model["sha256"], "effort": effort, "found": ["a|b"]}
            | {"scanner": detection.scanner()}
        )

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "_module", lambda: "benchmarks.detection")
    monkeypatch.setattr(detection, "spread", at_once)
    monkeypatch.setattr(detection, "examine", examine)
    return tmp_path


def model(name: str, half: str = "report", **more: Any) -> dict[str, Any]:
    kind = {"control": "prune"} if "clean" in name else {"attack": "por"}
    return {"id": name, "half": half, "recipe": "r", "sha256": name, "excluded": None, **kind, **more}


ZOO = [model("one"), model("clean one"), model("two")]


def test_a_run_writes_the_same_figures_as_table_and_as_json(results: Path) -> None:
    detection.detect([*ZOO, model("out", excluded="missed its bar")], results, "standard", 1)
    written = json.loads((results / "detection.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in written["scans"]] == ["one", "clean one", "two"]
    assert written["summary"]["report"]["right"] == [3, 3]
    assert written["summary"]["choose"]["right"] == [0, 0]
    assert {
        "figure": "accuracy, all models",
        "choose": "-",
        "report": "3 of 3 (100.0%)",
        "fresh": "-",
        "sealed": "-",
        "untouched": "-",
        "late": "-",
    } in written["rows"]
    shown = (results / "detection.md").read_text(encoding="utf-8")
    assert "| accuracy, all models | - | 3 of 3 (100.0%) | - | - | - | - |" in shown
    assert "3 of the 36 models of `report`" in shown
    assert "## Part `report`: recall by attack" in shown
    assert "called wrong" not in shown  # a table without rows
    assert "a\\|b" in shown  # what a model makes up cannot break the table
    assert not list(results.glob(".*"))


def test_a_run_goes_on_where_it_was_stopped(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    examine = detection.examine

    def stopped(model: Mapping[str, Any], zoo: Path, effort: Any, *, reference: bool) -> dict[str, Any]:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(model["id"])
        return examine(model, zoo, effort, reference=reference)

    monkeypatch.setattr(detection, "examine", stopped)
    with pytest.raises(KeyboardInterrupt):
        detection.detect(ZOO, results, "standard", 1)
    assert len(record.on_record("detection", "scans")) == 2
    first = list(seen)
    seen.clear()
    detection.detect(ZOO, results, "standard", 1)
    assert [*first, *seen] == ["one", "clean one", "two"]
    seen.clear()
    detection.detect([model("one", sha256="anew"), *ZOO[1:]], results, "standard", 1)
    assert seen == ["one"]
    seen.clear()
    detection.detect(ZOO[2:], results, "quick", 1)
    assert seen == ["two"]
    assert [row["id"] for row in record.on_record("detection_quick", "scans")] == ["two"]
    assert {row["effort"] for row in record.on_record("detection", "scans")} == {"standard"}
    seen.clear()
    monkeypatch.setattr(detection, "scanner", lambda: "other code")
    detection.detect(ZOO[:1], results, "standard", 1)
    assert seen == ["one"]


@pytest.mark.parametrize(
    ("effort", "reference", "name"),
    [
        ("standard", False, "detection"),
        ("standard", True, "detection_reference"),
        ("deep", False, "detection_deep"),
        ("deep", True, "detection_deep_reference"),
    ],
)
def test_what_was_asked_for_tells_results_apart(effort: Effort, reference: bool, name: str) -> None:
    assert detection.results_of(effort, reference) == name


def test_a_model_that_is_not_built_stops_the_run(results: Path) -> None:
    with pytest.raises(UsageError, match=r"^expected l6-por-rare in the zoo, build it: "):
        detection.detect([{"id": "l6-por-rare"}], results, "standard", 1)
