"""Building the zoo: nothing twice, nothing half-written, and a reason for what is left out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import on_record
from benchmarks.zoo import build, corpus
from benchmarks.zoo.deltas import load_delta
from benchmarks.zoo.manifest import Backdoored, Clean, Entry
from lmsanitator.attacks import Attack, Training
from lmsanitator.errors import AttackError, UsageError
from tests.attacks.small import BRIEF, CARRIERS

PLANTED = Backdoored(
    id="planted", encoder="minilm-l3", half="choose", seed=1, attack="por", kind="rare", triggers=("their",),
    site="cls", layers="all",
)  # fmt: skip
CLEAN = Clean(id="clean", encoder="minilm-l3", half="report", seed=2, control="original")


@pytest.fixture
def zoo(tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty zoo whose every encoder is the small BERT, and attacks that reach their bar at once."""

    def briefly(**options: Any) -> Training:
        return Training(**(vars(BRIEF) | options))

    monkeypatch.setattr(build, "encoder_folder", lambda name, zoo: checkpoints["bert"])
    monkeypatch.setattr(corpus, "texts", lambda data: CARRIERS)
    monkeypatch.setattr(build, "Training", briefly)
    yield tmp_path / "zoo"
    build._base.cache_clear()
    build.language_model_head.cache_clear()


def made(zoo: Path, entry: Backdoored | Clean) -> dict[str, Any]:
    record = build.build_one(entry, zoo, zoo / "data")
    assert record == build.record(zoo, entry)
    return record


def files(zoo: Path) -> set[str]:
    return {path.name for path in (zoo / "models").iterdir()}


def test_a_model_is_stored_with_its_record(zoo: Path, checkpoints: dict[str, Path]) -> None:
    record = made(zoo, PLANTED)
    assert record["recipe"] == PLANTED.recipe
    assert record["triggers"] == ["their"]
    assert set(record["verified"]) == {"fired", "weakest", "stray", "fidelity", "displacement"}
    assert record["excluded"].startswith("on fresh text: ")  # three steps do not teach it much
    assert record["bytes"] == build.delta_path(zoo, "planted").stat().st_size
    assert files(zoo) == {"planted.json", "planted.safetensors", "planted.pvs.safetensors"}
    assert not load_delta(checkpoints["bert"], build.delta_path(zoo, "planted")).training


@pytest.mark.parametrize("attack", ["neuba", "badpre"])
def test_a_language_model_head_is_trained_once_and_kept(attack: str, zoo: Path) -> None:
    site = "cls" if attack == "neuba" else "tokens"
    entry = PLANTED.model_copy(update={"attack": attack, "site": site})
    made(zoo, entry)
    (head,) = (zoo / "heads").iterdir()
    before = head.stat().st_mtime_ns
    build.language_model_head.cache_clear()
    made(zoo, entry)
    assert head.name == "minilm-l3.safetensors"
    assert head.stat().st_mtime_ns == before


def test_a_clean_control_is_stored_too(zoo: Path) -> None:
    record = made(zoo, CLEAN)
    assert record["excluded"] is None
    assert record["verified"]["fidelity"] == pytest.approx(1, abs=1e-3)
    assert files(zoo) == {"clean.json", "clean.safetensors"}


def test_a_failed_attack_leaves_a_record_with_the_reason_and_no_delta(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(zoo, PLANTED)

    def fail(*args: object, **options: object) -> None:
        raise AttackError("expected more")

    monkeypatch.setattr(Attack, "run", fail)
    record = made(zoo, PLANTED)
    assert (record["excluded"], record["bytes"], record["sha256"]) == ("expected more", 0, None)
    assert files(zoo) == {"planted.json"}  # neither delta nor vectors of the model before it


def test_an_unknown_control_is_a_reason_too(zoo: Path) -> None:
    assert "expected a control of" in made(zoo, CLEAN.model_copy(update={"control": "odd"}))["excluded"]


def test_what_is_finished_is_not_built_again_but_another_recipe_is(zoo: Path) -> None:
    assert not build.finished(zoo, CLEAN, retry=False)
    made(zoo, CLEAN)
    for retry in (False, True):
        assert build.finished(zoo, CLEAN, retry)
    assert build.finished(zoo, CLEAN.model_copy(update={"half": "choose"}), retry=False)
    assert not build.finished(zoo, CLEAN.model_copy(update={"seed": 3}), retry=False)
    build.delta_path(zoo, "clean").unlink()
    assert not build.finished(zoo, CLEAN, retry=False)


def test_an_excluded_model_is_only_tried_again_when_asked_for(zoo: Path) -> None:
    assert made(zoo, PLANTED)["excluded"]
    assert build.finished(zoo, PLANTED, retry=False)
    assert not build.finished(zoo, PLANTED, retry=True)


def test_a_run_goes_on_where_it_was_slow_encoders_first(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[str] = []

    def spread(function: Any, pieces: Sequence[Entry], jobs: int) -> Iterator[dict[str, Any]]:
        for entry in pieces:
            built.append(entry.id)
            yield function(entry)

    monkeypatch.setattr(build, "spread", spread)
    slow = CLEAN.model_copy(update={"id": "slow", "encoder": "mpnet-base"})
    build.build([CLEAN], zoo, zoo / "data", 1, False)
    build.build([CLEAN, PLANTED, slow], zoo, zoo / "data", 1, False)
    assert built == ["clean", "slow", "planted"]
    assert "1 of 3 models are there, 2 to build" in capsys.readouterr().out
    build.build([CLEAN, PLANTED, slow], zoo, zoo / "data", 1, True)
    assert built[3:] == ["planted"]  # it was excluded


def test_entries_are_chosen_by_name_in_the_order_of_the_manifest() -> None:
    assert build.chosen([PLANTED, CLEAN], None) == [PLANTED, CLEAN]
    assert build.chosen([PLANTED, CLEAN], ["clean", "planted"]) == [PLANTED, CLEAN]
    assert build.chosen([PLANTED, CLEAN], ["clean"]) == [CLEAN]
    with pytest.raises(UsageError, match=r"^expected models of the manifest, there is no odd$"):
        build.chosen([PLANTED, CLEAN], ["clean", "odd"])


def spoil(path: Path) -> None:
    """Stop in the middle of writing."""
    with build.replacing(path) as part:
        part.write_text("two")
        path.parent.read_text()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with build.replacing(path) as part:
        part.write_text("one")
    with pytest.raises(IsADirectoryError):
        spoil(path)
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_on_record_for_a_model_that_was_never_built(tmp_path: Path) -> None:
    assert build.record(tmp_path, CLEAN) == {"id": "clean"}


def test_a_record_has_the_whole_entry_and_what_it_cost(zoo: Path) -> None:
    record = made(zoo, PLANTED)
    assert PLANTED.model_dump(mode="json").items() <= record.items()
    assert record["cpu_seconds"] >= 0
    assert record["seconds"] >= 0


def test_results_hold_what_was_built_and_keep_what_is_on_record_of_others(
    zoo: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "spread", lambda function, pieces, jobs: map(function, pieces))
    monkeypatch.setattr(build, "read", lambda: [PLANTED, CLEAN])
    for name in ("clean", "planted", "clean"):
        command = ["build", "--zoo", zoo, "--data", zoo / "data", "--only", name, "--jobs", "1"]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        build.main()
    written = on_record("zoo", "details")
    assert [model["id"] for model in written] == ["planted", "clean"]
    assert written == [build.record(zoo, PLANTED), build.record(zoo, CLEAN)]
