"""What a scan is timed as: stages that add up to it, memory of its own, and the paper's settings multiplied out."""

import os
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.baselines import PVMining
from benchmarks.record import peak_memory
from benchmarks.speed import EASY, Case, StageClock, alone, cases_of, papers, ratios, scanned
from benchmarks.zoo.build import find
from benchmarks.zoo.manifest import Backdoored
from lmsanitator.detect import ScanConfig
from lmsanitator.encoder import FrozenEncoder
from tests.planted import open_bert


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    encoder = open_bert(0, "bako", reach=0.5)
    encoder.model.save_pretrained(tmp_path / "planted")
    encoder.tokenizer.save_pretrained(tmp_path / "planted")
    return tmp_path / "planted"


def test_the_stages_add_up_to_the_scan(planted: Path) -> None:
    *stages, whole = scanned(Case("planted", planted), ScanConfig(effort="quick"))
    assert whole["what"].startswith("whole scan, quick: cls")
    peaks = [row["peak MiB"] for row in (*stages, whole)]
    assert peaks[0] == min(peaks)  # between the two a stage that runs twice may end after one that is listed behind it
    assert peaks[-1] == max(peaks)
    names = [row["what"] for row in stages]
    assert names[0] == "opening"
    assert {"sweeping the vocabulary", "looking again"} <= {name.removesuffix(" at outliers") for name in names}
    assert sum(row["tokens"] for row in stages) == whole["tokens"] > 0
    assert sum(row["seconds"] for row in stages) == pytest.approx(whole["seconds"], abs=0.1)


def test_time_goes_to_the_stage_that_took_it(bert: FrozenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0, 3, 4, 10, 11, 15, 20])
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    clock = StageClock(bert)
    clock("sweeping", 0.5)  # work done: the 3 s before it were the sweep's
    clock("sweeping", 1.0)
    clock("growing at cls", 0.0)  # begins now: the 6 s before it were still the sweep's
    clock("growing at mask", 0.0)
    clock("mining at cls", 0.1)
    clock.book()
    assert {name: seconds for name, (seconds, _, _) in clock.stages.items()} == {
        "sweeping": 10,
        "growing": 1,
        "mining": 9,
    }


def test_the_papers_settings_are_multiplied_out_to_thirty_seeds_of_two_epochs(planted: Path) -> None:
    timed, epoch, verdict = papers(Case("planted", planted), PVMining.paper(), 1, "fp32")
    assert {row["precision"] for row in (timed, epoch, verdict)} == {"fp32"}
    assert timed["tokens"] > 0
    assert epoch["tokens"] == pytest.approx(timed["tokens"] * 2000 / 32, abs=1)
    assert verdict["tokens"] == pytest.approx(60 * epoch["tokens"], abs=60)
    assert timed["peak MiB"] > 0
    assert verdict["peak MiB"] == "-"


def test_the_ratios_are_to_the_whole_scan_of_the_first_model() -> None:
    what = ("sweeping", *["whole scan, standard: cls"] * 2, *["paper's, 3 steps", "paper's, clean verdict"] * 2)
    took = [(9, 90), (10, 100), (5, 50), (30, 40), (650, 8000), (10, 40), (320, 8000)]
    in_ = ["bf16"] * 3 + ["fp32"] * 2 + ["bf16"] * 2
    columns = ("what", "seconds", "tokens", "precision")
    rows = [
        dict(zip(columns, (name, *figures, precision), strict=True))
        for name, figures, precision in zip(what, took, in_, strict=True)
    ]
    assert ratios(rows) == [
        {"seconds": 65, "tokens": 80, "precision": "fp32"},
        {"seconds": 32, "tokens": 80, "precision": "bf16"},
    ]


def test_a_zoo_without_the_easy_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "minilm", lambda: tmp_path)
    cases, left_out = cases_of(None, ["minilm-l6"], tmp_path, tmp_path)
    assert [case.name for case in cases] == ["minilm-l6, clean"]
    assert left_out == ["l6-por-rare, an easy backdoored model, is left out: it is not in the zoo."]
    assert cases_of("some/model", ["minilm-l6"], tmp_path, tmp_path) == ([Case("model", "some/model")], [])


def test_the_easy_models_are_backdoored_models_of_their_encoders() -> None:
    for encoder, name in EASY.items():
        entry = find(name)
        assert isinstance(entry, Backdoored)
        assert (entry.encoder, entry.attack, entry.kind) == (encoder, "por", "rare")


def memory(ballast: int) -> list[speed.Row]:
    held = bytearray(os.urandom(1024)) * (ballast * 1024)
    return [{"peak": peak_memory(), "held": len(held)}]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's own peak")
def test_peak_memory_is_of_the_process_alone() -> None:
    held = bytearray(os.urandom(1024)) * (400 * 1024)
    (small,) = alone(memory, 1)
    assert small["peak"] + 200 < peak_memory()
    assert len(held) > small["held"]
