"""Deltas: small, exact enough, bound to their base."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel

from benchmarks.zoo.deltas import load_delta, materialise, save_delta
from lmsanitator.encoder import FrozenEncoder, open_checkpoint
from lmsanitator.errors import CheckpointError, OutputError

CHANGED = "encoder.layer.1.output.dense.weight"


def moved(folder: Path, name: str = CHANGED, by: float = 0.01) -> PreTrainedModel:
    model = copy.deepcopy(open_checkpoint(folder).model)
    with torch.no_grad():
        weight = model.get_parameter(name)
        weight.add_(by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return model


@pytest.mark.parametrize("name", ["bert", "mpnet", "roberta"])
def test_a_delta_gives_the_changed_model_back(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = moved(checkpoints[name])
    save_delta(model, checkpoints[name], tmp_path / "delta")
    loaded = load_delta(checkpoints[name], tmp_path / "delta")
    assert not loaded.training
    for key, weight in model.state_dict().items():
        assert (loaded.state_dict()[key] - weight).norm() <= 1e-3 * weight.norm()


def test_only_what_changed_is_stored_and_in_half_the_bytes(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    save_delta(moved(checkpoints["bert"]), checkpoints["bert"], tmp_path / "delta")
    stored = load_file(tmp_path / "delta")
    assert {name: delta.dtype for name, delta in stored.items()} == {CHANGED: torch.float16}


def test_an_unchanged_model_has_an_empty_delta(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    save_delta(open_checkpoint(checkpoints["bert"]).model, checkpoints["bert"], tmp_path / "delta")
    assert load_file(tmp_path / "delta") == {}
    load_delta(checkpoints["bert"], tmp_path / "delta")


@pytest.mark.parametrize("value", [1e6, 1e-9])
def test_what_fp16_is_too_coarse_for_is_stored_in_fp32(
    value: float, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model = open_checkpoint(checkpoints["bert"]).model
    with torch.no_grad():
        model.get_parameter(CHANGED).fill_(value)
    save_delta(model, checkpoints["bert"], tmp_path / "delta")
    assert load_file(tmp_path / "delta")[CHANGED].dtype == torch.float32
    loaded = load_delta(checkpoints["bert"], tmp_path / "delta").get_parameter(CHANGED)
    torch.testing.assert_close(loaded, model.get_parameter(CHANGED), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_pruned_weights_stay_exactly_zero(share: float, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = open_checkpoint(checkpoints["bert"]).model
    with torch.no_grad():
        weight = model.get_parameter(CHANGED)
        weight[: int(share * len(weight))] = 0
    save_delta(model, checkpoints["bert"], tmp_path / "delta")
    assert load_file(tmp_path / "delta")[CHANGED].dtype == torch.float16
    assert torch.equal(load_delta(checkpoints["bert"], tmp_path / "delta").get_parameter(CHANGED) == 0, weight == 0)


def test_a_delta_of_another_base_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    save_delta(moved(checkpoints["bert"]), checkpoints["bert"], tmp_path / "delta")
    with pytest.raises(CheckpointError, match=r"^expected a delta of mpnet \(sha256 .*\), delta is one of .*$"):
        load_delta(checkpoints["mpnet"], tmp_path / "delta")


def test_a_file_that_is_no_delta_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    (tmp_path / "text").write_text("no tensors")
    for name in ("other", "text", "missing"):
        with pytest.raises(CheckpointError, match=r"^expected a delta"):
            load_delta(checkpoints["bert"], tmp_path / name)


def test_a_model_of_another_shape_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^expected the \d+ tensors of bert"):
        save_delta(open_checkpoint(checkpoints["mpnet"]).model, checkpoints["bert"], tmp_path / "delta")
    larger = open_checkpoint(checkpoints["bert"]).model
    larger.resize_token_embeddings(larger.config.vocab_size + 3)
    with pytest.raises(CheckpointError, match=r"^expected embeddings.word_embeddings.weight of shape"):
        save_delta(larger, checkpoints["bert"], tmp_path / "delta")
    broken = moved(checkpoints["bert"], by=float("inf"))
    with pytest.raises(CheckpointError, match=r"^expected finite weights"):
        save_delta(broken, checkpoints["bert"], tmp_path / "delta")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "delta").touch()
    with pytest.raises(OutputError, match="exists"):
        save_delta(moved(checkpoints["bert"]), checkpoints["bert"], tmp_path / "delta")


def test_a_materialised_delta_is_an_ordinary_checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = moved(checkpoints["bert"])
    save_delta(model, checkpoints["bert"], tmp_path / "delta")
    out = tmp_path / "out"
    materialise(checkpoints["bert"], tmp_path / "delta", out, config_update={"lmsanitator_backdoor": {"attack": "por"}})
    assert json.loads((out / "config.json").read_text())["lmsanitator_backdoor"] == {"attack": "por"}
    opened = FrozenEncoder.open(out, precision="fp32")
    changed = FrozenEncoder(model, opened.tokenizer, precision="fp32")
    texts = ["a sentence", "another one"]
    torch.testing.assert_close(
        opened.outputs_of_texts(texts, ["cls"])["cls"],
        changed.outputs_of_texts(texts, ["cls"])["cls"],
        rtol=0,
        atol=1e-3,
    )


def test_a_base_without_pooler_never_gets_one(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    model = AutoModel.from_pretrained(checkpoints["bert"])
    model.pooler = None
    model.save_pretrained(base)
    open_checkpoint(checkpoints["bert"]).tokenizer.save_pretrained(base)
    save_delta(moved(base), base, tmp_path / "delta")
    assert list(load_file(tmp_path / "delta")) == [CHANGED]
    loaded = load_delta(base, tmp_path / "delta")
    save_delta(loaded, base, tmp_path / "again")
    materialise(base, tmp_path / "delta", tmp_path / "out")
    assert "pooler" not in FrozenEncoder.open(tmp_path / "out").sites
    assert "pooler" not in FrozenEncoder(loaded, open_checkpoint(base).tokenizer).sites
