"""What opens beside a plain folder: a hub's cache, pickles that were asked for, a prompt's encoder, half shards."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsanitator.cli import main
from lmsanitator.encoder import FrozenEncoder, open_checkpoint
from lmsanitator.errors import CheckpointError, UsageError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A sound BERT checkpoint of one's own."""
    return shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")


def cached(folder: Path, hub: Path) -> Path:
    """The same checkpoint as a hub's cache holds it: links to blobs beside the snapshots."""
    blobs, snapshot = hub / "models--org--name" / "blobs", hub / "models--org--name" / "snapshots" / "0a1b2c"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", str(number)))
    return snapshot


def test_a_snapshot_in_a_hub_cache_opens(folder: Path, tmp_path: Path) -> None:
    snapshot = cached(folder, tmp_path / "hub")
    assert FrozenEncoder.open(snapshot).digest == FrozenEncoder.open(folder).digest


def test_a_blob_that_is_a_link_out_is_refused(folder: Path, tmp_path: Path) -> None:
    snapshot = cached(folder, tmp_path / "hub")
    blob = (snapshot / "config.json").resolve()
    shutil.move(blob, tmp_path / "outside.json")
    blob.symlink_to(tmp_path / "outside.json")
    with pytest.raises(CheckpointError, match=r"config\.json is a link to .*outside\.json"):
        open_checkpoint(snapshot)


def test_blobs_of_another_repository_are_refused(folder: Path, tmp_path: Path) -> None:
    snapshot = cached(folder, tmp_path / "hub")
    other = tmp_path / "hub" / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(folder / "config.json", other / "1")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(other / "1")
    with pytest.raises(CheckpointError, match=r"config\.json is a link"):
        open_checkpoint(snapshot)


def test_shards_of_a_hub_cache_open(folder: Path, tmp_path: Path) -> None:
    whole = FrozenEncoder.open(folder).digest
    split(folder, torch.float32)
    assert FrozenEncoder.open(cached(folder, tmp_path / "hub")).digest == whole


def split(folder: Path, kind: torch.dtype) -> None:
    weights = {name: weight.to(kind) for name, weight in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    parts = {"a.safetensors": list(weights)[::2], "b.safetensors": list(weights)[1::2]}
    for part, names in parts.items():
        save_file({name: weights[name] for name in names}, folder / part, {"format": "pt"})
    weight_map = {name: part for part, names in parts.items() for name in names}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_shards_of_any_floating_point_open_in_fp32(folder: Path, kind: torch.dtype) -> None:
    before = load_file(folder / WEIGHTS)
    split(folder, kind)
    after = open_checkpoint(folder).model.state_dict()
    assert {weight.dtype for weight in after.values() if weight.is_floating_point()} == {torch.float32}
    assert all(torch.equal(after[name], weight.to(kind).float()) for name, weight in before.items())


@pytest.mark.parametrize("shards", [1, 2])
def test_a_pickle_of_tensors_opens_as_its_safetensors_do(folder: Path, shards: int) -> None:
    pytest.importorskip("picklescan", reason="needs the pickle extra")
    expected = FrozenEncoder.open(folder).digest
    held = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"pytorch_model-{number}.bin" for number in range(shards)] if shards > 1 else ["pytorch_model.bin"]
    for number, name in enumerate(names):
        torch.save({key: held[key] for key in list(held)[number::shards]}, folder / name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": {key: names[at % shards] for at, key in enumerate(held)}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert FrozenEncoder.open(folder, allow_pickle=True).digest == expected
    with pytest.raises(CheckpointError, match="can run code"):
        open_checkpoint(folder)


def test_a_pickle_saved_with_its_head_opens(folder: Path) -> None:
    """As most old checkpoints on the hub are: names with a prefix, parameters, and a head beside the encoder."""
    pytest.importorskip("picklescan", reason="needs the pickle extra")
    expected = FrozenEncoder.open(folder).digest
    held = {f"bert.{name}": torch.nn.Parameter(weight) for name, weight in load_file(folder / WEIGHTS).items()}
    head = {"cls.predictions.bias": torch.zeros(3), "bert.embeddings.position_ids": torch.arange(64).unsqueeze(0)}
    (folder / WEIGHTS).unlink()
    torch.save(held | head, folder / "pytorch_model.bin")
    assert FrozenEncoder.open(folder, allow_pickle=True).digest == expected


def test_pickles_without_picklescan_are_a_usage_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picklescan.scanner", None)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(UsageError, match=r"^expected picklescan.*lmsanitator\[pickle\]"):
        open_checkpoint(folder, allow_pickle=True)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_hub_id_fetches_pickles_only_when_asked_and_needed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    open_checkpoint("org/name@abc", allow_pickle=allowed)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError):
        open_checkpoint("org/name@abc", allow_pickle=allowed)
    fetched = ["pytorch_model*.bin" in options["allow_patterns"] for options in asked]
    assert fetched == ([False, False, True] if allowed else [False, False])
    assert all(options["ignore_patterns"] == ["*/*"] for options in asked), "nothing below the top is needed"


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"])
def test_a_prompt_leads_to_the_encoder_it_was_tuned_on(folder: Path, tmp_path: Path, kind: str) -> None:
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    about = {"peft_type": kind, "base_model_name_or_path": str(folder)}
    (tuned / "adapter_config.json").write_text(json.dumps(about))
    opened = FrozenEncoder.open(tuned)
    assert opened.source == str(folder), "the report names what was scanned"
    assert opened.digest == FrozenEncoder.open(folder).digest


def test_a_path_that_is_no_utf8_is_refused_before_the_report_needs_it(folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    folder.rename(odd)
    with pytest.raises(CheckpointError, match=r"^expected a path in UTF-8"):
        open_checkpoint(odd)


def panic() -> None:
    raise type("PanicException", (BaseException,), {})("index out of bounds")


def test_a_library_that_panics_in_a_scan_is_one_line_and_exit_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python ends with 1 on what is no Exception, and 1 says "backdoored"."""

    def run(*arguments: object, **options: object) -> Callable[[], None]:
        panic()
        return panic

    monkeypatch.setattr("lmsanitator.detect.scan", run)
    with pytest.raises(SystemExit) as stop:
        main(["scan", str(folder)])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "lmsanitator: expected a tokenizer that works: index out of bounds\n"
