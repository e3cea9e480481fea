"""Opening a stranger's files: what fits is opened, everything else is refused in one line, and nothing runs."""

import json
import os
import pickle
import resource
import shutil
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config

from lmsanitator.encoder import FrozenEncoder, open_checkpoint
from lmsanitator.encoder.loading import check_outputs
from lmsanitator.errors import CheckpointError, LMSanitatorError, UnsupportedError

Break = Callable[[Path], object]


@pytest.fixture
def folder(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A sound BERT checkpoint of one's own to break."""
    return shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")


def refused(source: str | Path, *words: str, error: type[LMSanitatorError] = CheckpointError) -> None:
    """Opening fails with exactly this class and one line that says what was expected and holds all `words`."""
    with pytest.raises(error) as caught:
        open_checkpoint(source)
    message = str(caught.value)
    assert type(caught.value) is error
    assert message.startswith("expected ")
    assert "\n" not in message
    for word in words:
        assert word in message, message


def edit_config(**changes: Any) -> Break:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    def edit(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return edit


def write(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def remove(*names: str) -> Break:
    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def cut(name: str, size: int) -> Break:
    return lambda folder: os.truncate(folder / name, size)


def both(first: Break, second: Break) -> Break:
    return lambda folder: (first(folder), second(folder))


def shard(weight_map: object, name: str = "model-00001-of-00001.safetensors") -> Break:
    def edit(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return edit


def set_nan(weights: dict[str, torch.Tensor]) -> None:
    weights["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")


def set_infinite(weights: dict[str, torch.Tensor]) -> None:
    weights["embeddings.word_embeddings.weight"][0, 0] = float("inf")


def drop_layer(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if name.startswith("encoder.layer.1.")]:
        del weights[name]


def drop_pooler(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if name.startswith("pooler.")]:
        del weights[name]


def shrink_vocabulary(folder: Path) -> None:
    edit_weights(
        lambda weights: weights.update(
            {"embeddings.word_embeddings.weight": weights["embeddings.word_embeddings.weight"][:100].clone()}
        )
    )(folder)
    edit_config(vocab_size=100)(folder)


def mute_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["normalizer"] = {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
    raw["post_processor"] = None
    path.write_text(json.dumps(raw), encoding="utf-8")


def forget_unknown(folder: Path) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["model"]["unk_token"] = "[GONE]"
    path.write_text(json.dumps(raw), encoding="utf-8")


BROKEN: dict[str, tuple[Break, tuple[str, ...]]] = {
    "no config": (remove("config.json"), ("config.json", "found none")),
    "config is not JSON": (write("config.json", b"{model_type: bert}"), ("JSON", "config.json")),
    "config is no object": (write("config.json", b'["bert"]'), ("JSON object", "list")),
    "config is not UTF-8": (write("config.json", b'{"model_type": "b\xe9rt"}'), ("config.json", "utf-8")),
    "config is nested without end": (write("config.json", b"[" * 500_000), ("config.json",)),
    "config is huge": (write("config.json", b" " * 2_000_000 + b"{}"), ("config.json", "1,048,576", "2,000,002")),
    "config without model type": (write("config.json", b"{}"), ("model_type", "None")),
    "config with unknown model type": (edit_config(model_type="bert9000"), ("model_type", "'bert9000'")),
    "config with a list for model type": (edit_config(model_type=["bert"]), ("model_type", "['bert']")),
    "config with a word for a number": (edit_config(hidden_size="large"), ("bert", "config.json")),
    "config with heads that do not fit": (edit_config(num_attention_heads=5), ("config",)),
    "config with negative sizes": (edit_config(hidden_size=-32), ("config",)),
    "config bomb: wide": (edit_config(hidden_size=10**6), ("far more",)),
    "config bomb: deep": (edit_config(num_hidden_layers=10**6), ("num_hidden_layers", "1,000,000")),
    "config bomb: wide and deep": (edit_config(hidden_size=10**6, num_hidden_layers=10**6), ("1,000,000",)),
    "config bomb: less deep": (edit_config(num_hidden_layers=100_000), ("far more",)),
    "config bomb: deep, weights shared": (
        edit_config(model_type="albert", num_hidden_layers=100_000, embedding_size=32),
        ("far more",),
    ),
    "config bomb: labels": (edit_config(num_labels=10**9), ("num_labels", "1,000,000,000")),
    "config bomb: layers in a list": (
        edit_config(model_type="gpt_neo", attention_types=[[["global"], 10**5], [["local"], 10**5]]),
        ("attention_types", "100,000"),
    ),
    "config bomb: vocabulary": (edit_config(vocab_size=10**12), ("far more",)),
    "config bomb: position tables": (
        edit_config(model_type="gptj", max_position_embeddings=10**10, n_embd=32, n_layer=2, n_head=2, rotary_dim=8),
        ("far more",),
    ),
    "config that names code for attention": (
        edit_config(attn_implementation="someone/kernel"),
        ("attention", "'someone/kernel'"),
    ),
    "config that names code for a part": (
        edit_config(_attn_implementation={"": "someone/kernel:forward"}),
        ("attention", "someone/kernel"),
    ),
    "config that names another weights file": (
        edit_config(transformers_weights="adapter_model.bin"),
        ("model.safetensors", "'adapter_model.bin'"),
    ),
    "no weights": (remove("model.safetensors"), ("safetensors", "found none")),
    "weights cut short": (cut("model.safetensors", 50_000), ("whole safetensors", "model.safetensors")),
    "weights cut in the header": (cut("model.safetensors", 100), ("whole safetensors",)),
    "weights empty": (cut("model.safetensors", 0), ("whole safetensors",)),
    "weights are something else": (write("model.safetensors", b"PK\x03\x04" * 100), ("whole safetensors",)),
    "weights with a boundless header": (
        write("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
        ("whole safetensors",),
    ),
    "weights hold NaN": (edit_weights(set_nan), ("finite", "encoder.layer.1.output.dense.weight")),
    "weights hold infinity": (edit_weights(set_infinite), ("finite", "embeddings.word_embeddings.weight")),
    "weights lack a layer": (edit_weights(drop_layer), ("missing", "encoder.layer.1.")),
    "weights of other shapes": (edit_config(intermediate_size=48), ("fit the config",)),
    "index is not JSON": (
        both(shard({}), write("model.safetensors.index.json", b"\x80\x04")),
        ("model.safetensors.index.json",),
    ),
    "index without map": (shard(None), ("weight_map",)),
    "index with numbers for names": (shard({"embeddings": 1}), ("weight_map",)),
    "index is empty": (shard({}), ("0 tensors",)),
    "index names a missing shard": (shard({"a": "gone.safetensors"}), ("gone.safetensors",)),
    "index names a file above the folder": (
        shard({"a": "../outside.safetensors"}, "../outside.safetensors"),
        ("outside.safetensors", "inside"),
    ),
    "index names an absolute path": (shard({"a": "/dev/zero"}), ("zero", "inside")),
    "index names a pickle": (
        both(write("a.bin", pickle.dumps([1])), shard({"a": "a.bin"})),
        ("safetensors", "a.bin"),
    ),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), ("tokenizer", "tokenizer.json")),
    "tokenizer is not JSON": (write("tokenizer.json", b"{"), ("JSON", "tokenizer.json")),
    "tokenizer is no tokenizer": (write("tokenizer.json", b'{"model": {}}'), ("tokenizer that works",)),
    "tokenizer config is no object": (write("tokenizer_config.json", b"[]"), ("JSON object", "tokenizer_config.json")),
    "tokenizer with more entries than embeddings": (shrink_vocabulary, ("100 rows", "306")),
    "tokenizer that fails on what it does not know": (forget_unknown, ("tokenizer that works", "[UNK]")),
    "tokenizer that swallows everything": (mute_tokenizer, ("leaves words as they are",)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_checkpoint_is_refused_in_one_line(folder: Path, name: str) -> None:
    breaking, words = BROKEN[name]
    breaking(folder)
    before = sorted(folder.parent.rglob("*"))
    started = time.monotonic()
    refused(folder, *words)
    assert time.monotonic() - started < 5
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (lambda folder: T5Config().save_pretrained(folder), ("encoder-decoder", "t5")),
        (edit_config(model_type="vit"), ("text", "vit")),
        (edit_config(quantization_config={"quant_method": "bitsandbytes"}), ("quantized",)),
        (write("adapter_config.json", b'{"base_model_name_or_path": "org/other"}'), ("adapter_config.json",)),
    ],
    ids=["encoder-decoder", "vision model", "quantized", "adapter beside the weights"],
)
def test_a_sound_checkpoint_of_another_kind_is_unsupported(
    folder: Path, breaking: Break, words: tuple[str, ...]
) -> None:
    breaking(folder)
    refused(folder, *words, error=UnsupportedError)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "config.json", "found none")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "hub id", "nowhere")


@pytest.mark.parametrize(
    "source", ["", "two words", "../up", "a/b/c/d", "org/name@", "x" * 5000, "nul\0byte", "~/model"]
)
def test_what_is_neither_folder_nor_hub_id_is_refused(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(source)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    refused(tmp_path / "notes.txt", "directory", "got a file", "notes.txt")


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.canary), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_a_pickle_is_refused_and_never_run(folder: Path, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    torch.save(Payload(canary), folder / name)
    refused(folder, "safetensors", name, "can run code")
    assert not canary.exists()
    with pytest.warns(ResourceWarning):  # the payload works: unpickled by anyone else it leaves an open file
        torch.load(folder / name, weights_only=False)
    assert canary.exists()


def test_a_pickle_beside_sound_weights_is_never_run(folder: Path, tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "canary"), folder / "pytorch_model.bin")
    torch.save(Payload(tmp_path / "canary"), folder / "adapter_model.bin")
    open_checkpoint(folder)
    assert not (tmp_path / "canary").exists()


def test_code_beside_sound_weights_is_never_run(folder: Path, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'canary')!r}, 'w').close()\nclass Model: ...\n"
    for module in ("modeling_bert", "tokenization_bert", "configuration_bert"):
        (folder / f"{module}.py").write_text(code)
    edit_config(auto_map={"AutoModel": "modeling_bert.Model", "AutoConfig": "configuration_bert.Model"})(folder)
    path = folder / "tokenizer_config.json"
    mapped = {"auto_map": {"AutoTokenizer": [None, "tokenization_bert.Model"]}}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | mapped))
    open_checkpoint(folder)
    assert not (tmp_path / "canary").exists()


def test_a_config_bomb_takes_no_memory(folder: Path) -> None:
    open_checkpoint(folder)  # whatever opening takes at all is taken
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in (name for name in BROKEN if name.startswith("config bomb")):
        BROKEN[name][0](folder)
        with pytest.raises(CheckpointError):
            open_checkpoint(folder)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert taken * (1 if sys.platform == "darwin" else 1024) < 64 * 2**20


def test_a_sound_checkpoint_opens_and_nothing_is_left_behind(checkpoints: dict[str, Path]) -> None:
    for name, folder in checkpoints.items():
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        opened = open_checkpoint(folder)
        assert opened.model.config.model_type == name
        assert opened.source == str(folder)
        assert opened.untrained == frozenset()
        assert opened.tokenizer.padding_side == "right"
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_checkpoint_without_pooler_opens_and_has_no_pooler_site(folder: Path) -> None:
    edit_weights(drop_pooler)(folder)
    assert open_checkpoint(folder).untrained == {"pooler.dense.bias", "pooler.dense.weight"}
    assert "pooler" not in FrozenEncoder.open(folder).sites


def test_shards_open_like_one_file(folder: Path) -> None:
    whole = FrozenEncoder.open(folder).digest
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"a.safetensors": list(weights)[::2], "b.safetensors": list(weights)[1::2]}
    for part, names in parts.items():
        save_file({name: weights[name] for name in names}, folder / part, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: part for part, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert FrozenEncoder.open(folder).digest == whole


def test_half_precision_weights_are_opened_in_full_precision(folder: Path) -> None:
    def halve(weights: dict[str, torch.Tensor]) -> None:
        weights.update({name: weight.half() for name, weight in weights.items()})

    edit_weights(halve)(folder)
    edit_config(dtype="float16")(folder)
    assert {weight.dtype for weight in open_checkpoint(folder).model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("source", "repo", "revision"),
    [
        ("org/name", "org/name", None),
        ("org/name@0a1b2c3", "org/name", "0a1b2c3"),
        ("org/name.v2@refs/pr/1", "org/name.v2", "refs/pr/1"),
    ],
)
def test_a_hub_id_fetches_needed_files_of_the_asked_revision_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, repo: str, revision: str | None
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(folder)
    assert open_checkpoint(source).source == source
    assert (asked["repo_id"], asked["revision"]) == (repo, revision)
    served = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "spiece.model"]
    hostile = ["pytorch_model.bin", "modeling.py", "model.pkl", "model.h5", "model.pt", "tokenizer.py", "model.onnx"]
    patterns = asked["allow_patterns"]
    assert [name for name in served + hostile if any(fnmatch(name, pattern) for pattern in patterns)] == served


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("bad id\nsecond line"), RuntimeError("no route")])
def test_a_hub_that_cannot_be_reached_is_a_checkpoint_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def snapshot_download(repo_id: str, **options: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    refused("org/name", "hub model org/name", str(error).splitlines()[0])


def test_a_local_folder_never_asks_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repo_id: str, **options: Any) -> str:
        raise AssertionError(f"asked the hub for {repo_id}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(folder.parent)
    (folder.parent / "org").mkdir()
    folder.rename(folder.parent / "org" / "name")
    open_checkpoint("org/name")


@pytest.mark.parametrize("named", [None, "[SEP]", "[MASK]"])
def test_the_first_token_of_every_text_is_read_whatever_a_tokenizer_calls_it(folder: Path, named: str | None) -> None:
    """A head reads there: a scan that left CLS out would call a backdoor at CLS clean."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("cls_token", None)
    path.write_text(json.dumps(settings | ({"cls_token": named} if named else {})), encoding="utf-8")
    encoder = FrozenEncoder.open(folder)
    assert encoder.sites[0] == "cls"
    assert encoder.tokenizer.cls_token == "[CLS]"


def test_a_config_that_does_not_say_how_wide_outputs_are_is_unsupported(bert: FrozenEncoder) -> None:
    """Those of models that read pictures as well keep it in a part of theirs."""
    bert.model.config.hidden_size = 7
    with pytest.raises(UnsupportedError, match=r"^expected a config whose hidden_size is that of the outputs, 32: "):
        check_outputs(bert.model, bert.tokenizer)
