"""Pictures: valid XML, true to the figures, and drawn from whatever results are there."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring  # the pictures come from this package

import pytest

from benchmarks import plots, record
from benchmarks.baselines.summary import auc
from benchmarks.roc import chart, curves

SVG = "{http://www.w3.org/2000/svg}"


def scans(p_values: Sequence[float], kinds: str, half: str = "report") -> list[dict[str, Any]]:
    return [{"half": half, "backdoored": kind == "b", "p": p} for p, kind in zip(p_values, kinds, strict=True)]


def scores(values: Sequence[float], kinds: str, name: str = "hotflip") -> list[dict[str, Any]]:
    rows = scans(values, kinds)
    return [{**row, "score": row["p"], "baseline": name} for row in rows]


def drawn(picture: str) -> Element:
    return fromstring(picture)  # noqa: S314


def texts(picture: str) -> list[str]:
    return [found.text or "" for found in drawn(picture).iter(f"{SVG}text")]


def under(points: Sequence[tuple[float, float]]) -> float:
    steps = pairwise(points)
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in steps)


def test_a_curve_goes_through_every_threshold_and_ties_go_slanting() -> None:
    (curve,) = curves(scans([1e-9, 1.0, 0.5, 1.0], "bbcc"), [])
    assert curve.points == ((0, 0), (0, 0.5), (0.5, 0.5), (1, 1))
    assert curve.area == under(curve.points) == 0.625
    assert curve.label == "lmsanitator: AUC 0.625 over 4 models"


@pytest.mark.parametrize("values", [[3, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1], [2, 0, 2, 1]])
def test_the_area_under_a_curve_is_the_auc_of_the_table(values: list[float]) -> None:
    rows = scores(values, "bbcc")
    (curve,) = curves([], rows)
    assert under(curve.points) == pytest.approx(auc(rows))
    assert (curve.points[0], curve.points[-1]) == ((0, 0), (1, 1))


def test_the_half_that_thresholds_were_chosen_on_is_not_drawn() -> None:
    assert curves(scans([1e-9, 1.0], "bc", "choose"), []) == []


def test_a_p_value_too_small_for_a_float_is_drawn() -> None:
    (curve,) = curves(scans([0.0, 1.0], "bc"), [])
    assert curve.area == 1


def test_every_curve_is_labelled_and_says_over_how_many_models() -> None:
    partial = scores([5, 1, 0], "bbc") + scores([1, 2], "bc", "<odd & name>") + scores([1, 2], "bb", "one class alone")
    found = curves(scans([1e-9, 1e-8, 0.4, 1.0], "bbcc"), partial)
    assert [curve.name for curve in found] == ["lmsanitator", "hotflip", "<odd & name>"]
    picture = chart(found)
    assert {curve.label for curve in found} <= set(texts(picture))
    assert "hotflip: AUC 1.000 over 3 models" in texts(picture)
    thick = [line for line in drawn(picture).iter(f"{SVG}polyline") if line.get("stroke-width") == "2.5"]
    looks = [(line.get("stroke"), line.get("stroke-dasharray")) for line in thick]
    assert len(looks) == 2 * len(found)  # the curve, and a piece of it in the legend
    assert len(set(looks)) == len(found)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(plots, "DOCS", tmp_path)
    return tmp_path


def store(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_pictures_are_drawn_from_the_results_that_are_there(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plots.main()
    assert not list(folders.iterdir())
    assert "roc.svg: nothing to draw" in capsys.readouterr().out
    store(folders, "detection", {"scans": scans([1e-9, 1.0], "bc")})
    plots.main()
    assert "lmsanitator: AUC 1.000 over 2 models" in texts((folders / "roc.svg").read_text(encoding="utf-8"))
    assert not (folders / "vulnerability.svg").exists()


def test_the_heatmap_shows_each_figure_and_leaves_gaps_white(folders: Path) -> None:
    cells = [
        {"victim": "v", "task": "sst2", "method": "prefix", "ASR %": 93.4},
        {"victim": "v", "task": "trec", "method": "lora", "ASR %": 10.0},
    ]
    store(folders, "vulnerability", {"rows": cells})
    plots.main()
    shown = texts((folders / "vulnerability.svg").read_text(encoding="utf-8"))
    assert {"v", "sst2", "trec", "prefix", "lora", "93", "10"} <= set(shown)
    assert len(shown) == 8


def test_the_guarded_study_has_two_bars_a_row_as_long_as_their_figures(folders: Path) -> None:
    row = {"victim": "a", "task": "t", "method": "m", "ASR %": 100.0, "guarded ASR %": 0.25}
    store(folders, "defence", {"rows": [row, {**row, "task": "u", "guarded ASR %": 50.0}]})
    plots.main()
    picture = (folders / "defence.svg").read_text(encoding="utf-8")
    bars = [float(bar.get("width", 0)) for bar in drawn(picture).iter(f"{SVG}rect") if bar.get("height") == "8"]
    assert bars == [400, 1, 400, 200]
    assert {"a t m", "a u m", "100", "0.25", "50"} <= set(texts(picture))
