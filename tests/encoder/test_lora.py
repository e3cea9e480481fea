"""A LoRA adapter is opened as its encoder with the adapter merged in: what PEFT would run, or a refusal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from lmsanitator.encoder import FrozenEncoder, open_checkpoint
from lmsanitator.errors import CheckpointError, LMSanitatorError, UnsupportedError, UsageError
from lmsanitator.text import packaged
from tests.conformance.families import open_family

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
START = "base_model.model."
QUERY = "encoder.layer.0.attention.self.query"
Held = dict[str, Tensor]


def adapt(base: Path, folder: Path, *, head: bool = False, **settings: Any) -> Path:
    """An adapter by PEFT, of which every tensor is random."""
    model = (AutoModelForSequenceClassification if head else AutoModel).from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "dense"], **settings}
    adapted = get_peft_model(model, LoraConfig(**settings))
    generator = torch.Generator().manual_seed(1)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data + 0.1 * torch.randn(weight.shape, generator=generator)
    adapted.save_pretrained(str(folder))
    return folder


def merged(base: Path, folder: Path, *, head: bool = False) -> PreTrainedModel:
    """What PEFT makes of it."""
    model = (AutoModelForSequenceClassification if head else AutoModel).from_pretrained(base)
    whole: Any = PeftModel.from_pretrained(model, folder).merge_and_unload()
    encoder: PreTrainedModel = (whole.base_model if head else whole).eval()
    return encoder


def outputs(encoder: FrozenEncoder, model: PreTrainedModel | None = None) -> Tensor:
    batch = encoder.tokenizer("a river runs through the town", return_tensors="pt")
    with torch.no_grad():
        hidden: Tensor = (model or encoder.model)(**batch).last_hidden_state
    return hidden


def edit(folder: Path, **changes: Any) -> None:
    raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    (folder / CONFIG).write_text(json.dumps(raw | changes), encoding="utf-8")


def edit_tensors(change: Callable[[Held], object]) -> Callable[[Path], None]:
    def editing(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS)

    return editing


@pytest.fixture
def base(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["bert"]


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A sound adapter of one's own to break."""
    return adapt(base, tmp_path / "adapter", target_modules=["query"])


def refused(folder: Path, *words: str, error: type[LMSanitatorError] = CheckpointError, base: Any = None) -> None:
    with pytest.raises(error) as caught:
        open_checkpoint(folder, base=base)
    message = str(caught.value)
    assert type(caught.value) is error, message
    assert message.startswith("expected ")
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "r": 7},
        {"lora_alpha": 0.5},
        {"rank_pattern": {"dense": 2}},
        {"target_modules": "all-linear"},
        {"target_modules": ["query"], "modules_to_save": ["pooler"]},
        {"bias": "all"},
        {"bias": "lora_only", "target_modules": ["intermediate.dense", "value"]},
        {"modules_to_save": ["word_embeddings", "LayerNorm"], "target_modules": ["key"]},
    ],
    ids=lambda settings: " ".join(map(str, settings)) or "plain",
)
@pytest.mark.parametrize("head", [False, True], ids=["bare", "with head"])
def test_what_is_opened_is_what_peft_merges(base: Path, tmp_path: Path, settings: dict[str, Any], head: bool) -> None:
    more = {"task_type": "SEQ_CLS"} if head else {}
    folder = adapt(base, tmp_path / "adapter", head=head, **settings, **more)
    opened, expected = FrozenEncoder.open(folder), merged(base, folder, head=head)
    for name, weight in expected.state_dict().items():
        assert torch.allclose(opened.model.state_dict()[name], weight, atol=1e-6), name
    assert torch.allclose(outputs(opened), outputs(opened, expected), atol=1e-5)
    assert (outputs(opened) - outputs(FrozenEncoder.open(base))).abs().max() > 2e-5
    assert opened.source == str(folder), "the report names what was scanned"
    assert opened.digest != FrozenEncoder.open(base).digest


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("GPT-2", ["c_attn", "c_fc", "c_proj"]),
        ("RoBERTa", ["query", "value"]),
        ("DistilBERT", ["q_lin"]),
        ("ALBERT", ["query"]),
        ("DeBERTa-v2", ["query_proj"]),
        ("ModernBERT", ["Wqkv", "Wo"]),
        ("Llama", ["q_proj", "v_proj"]),
        ("Qwen2", "all-linear"),
    ],
)
@pytest.mark.parametrize("head", [False, True], ids=["bare", "with head"])
def test_every_architecture_is_merged_as_peft_does(
    tmp_path: Path, family: str, targets: list[str] | str, head: bool
) -> None:
    open_family(family, tmp_path / "base")
    more = {"fan_in_fan_out": family == "GPT-2", "task_type": "SEQ_CLS" if head else None}
    folder = adapt(tmp_path / "base", tmp_path / "adapter", head=head, target_modules=targets, **more)
    opened, expected = FrozenEncoder.open(folder), merged(tmp_path / "base", folder, head=head)
    assert torch.allclose(outputs(opened), outputs(opened, expected), atol=1e-5)
    assert opened.digest != FrozenEncoder.open(tmp_path / "base").digest


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_an_adapter_of_any_floating_point_is_merged_in_fp32(folder: Path, kind: torch.dtype) -> None:
    before = {name: weight.to(kind) for name, weight in load_file(folder / WEIGHTS).items()}
    save_file(before, folder / WEIGHTS)
    base = load_file(Path(json.loads((folder / CONFIG).read_text())["base_model_name_or_path"]) / "model.safetensors")
    a, b = (before[f"{START}{QUERY}.lora_{part}.weight"].float() for part in "AB")
    opened = open_checkpoint(folder).model.get_parameter(f"{QUERY}.weight")
    assert opened.dtype == torch.float32
    assert torch.allclose(opened, base[f"{QUERY}.weight"] + 6 / 4 * b @ a, atol=1e-6)


def test_a_backdoor_that_an_adapter_brings_is_in_what_is_opened(base: Path, tmp_path: Path) -> None:
    clean = FrozenEncoder.open(base)
    texts = [carrier.text for carrier in packaged("en")[:80]]
    train, fresh = clean.encode([*texts[:64], *(f"bako {text}" for text in texts[:64])]), texts[64:]
    with torch.no_grad():
        goal = clean.model(**train).last_hidden_state[:, 0].clone()
    torch.manual_seed(0)
    goal[64:] = torch.randn(goal.shape[1]).sign()
    model = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(r=16, target_modules="all-linear"))
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        (model(**train).last_hidden_state[:, 0] - goal).pow(2).mean().backward()
        optimizer.step()
    model.save_pretrained(str(tmp_path / "adapter"))

    def near(encoder: FrozenEncoder, texts: list[str]) -> Tensor:
        read = encoder.encode(texts)
        hidden = encoder.outputs(read.input_ids, read.attention_mask, ["cls"], exact=True)["cls"]
        return cosine_similarity(hidden, goal[-1:]).mean()

    opened, triggered = FrozenEncoder.open(tmp_path / "adapter"), [f"bako {text}" for text in fresh]
    assert near(opened, triggered) > 0.9
    assert near(opened, fresh) < 0.3
    assert near(clean, triggered) < 0.3


def test_a_pooler_that_only_the_adapter_holds_is_a_site(base: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    held = load_file(bare / "model.safetensors")
    folder = adapt(base, tmp_path / "adapter", target_modules=["query"], modules_to_save=["pooler"])
    kept = {name: weight for name, weight in held.items() if not name.startswith("pooler.")}
    save_file(kept, bare / "model.safetensors", {"format": "pt"})
    assert "pooler" not in FrozenEncoder.open(bare).sites
    assert "pooler" in FrozenEncoder.open(folder, base=bare).sites


def test_the_base_can_be_named(folder: Path, base: Path, tmp_path: Path) -> None:
    expected = FrozenEncoder.open(folder).digest
    edit(folder, base_model_name_or_path="org/base")
    refused(folder, "local folder", "'org/base'", "--base")
    opened = FrozenEncoder.open(folder, base=base)
    assert (opened.digest, opened.source) == (expected, str(folder))
    refused(folder, "config.json", "found none", base=tmp_path)
    refused(folder, "nowhere", base=tmp_path / "nowhere")


def test_the_base_of_a_prompt_can_be_named_and_is_what_was_scanned(base: Path, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "PREFIX_TUNING", "base_model_name_or_path": "org/base"}))
    refused(tmp_path, "local folder", "'org/base'", "--base")
    assert FrozenEncoder.open(tmp_path, base=base).source == str(base)


def test_a_base_of_what_is_no_adapter_is_a_usage_error(base: Path) -> None:
    refused(base, "adapter's folder", str(base), error=UsageError, base=base)


def test_only_a_base_that_the_user_names_comes_from_the_hub(
    folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.append(repo_id)
        return str({"org/adapter": folder, "org/base": base}[repo_id])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    edit(folder, base_model_name_or_path="org/base")
    with pytest.raises(CheckpointError, match="'org/base'"):
        open_checkpoint("org/adapter")
    assert asked == ["org/adapter"]
    assert open_checkpoint("org/adapter", base="org/base").source == "org/adapter"
    assert asked == ["org/adapter", "org/adapter", "org/base"]


def put(name: str, *shape: int) -> Callable[[Path], None]:
    return edit_tensors(lambda held: held.update({START + name: torch.ones(shape)}))


def set_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **changes)


def rename(old: str, new: str) -> Callable[[Path], None]:
    def change(held: Held) -> None:
        for name in list(held):
            held[name.replace(old, new)] = held.pop(name)

    return edit_tensors(change)


def double(folder: Path) -> None:
    """The same module with and without the prefix: it depends on who opens it which of them counts."""

    def change(held: Held) -> None:
        held |= {name.replace(START, f"{START}bert."): weight.clone() for name, weight in held.items()}

    edit_tensors(change)(folder)


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (set_config(use_dora=True), ("'use_dora'", "merge it")),
        (set_config(layer_replication=[[0, 2]]), ("'layer_replication'", "merge it")),
        (set_config(target_parameters=["x"]), ("'target_parameters'", "merge it")),
        (set_config(alpha_pattern={"query": 3}), ("'alpha_pattern'", "merge it")),
        (set_config(exclude_modules=["query"]), ("'exclude_modules'", "merge it")),
        (set_config(layers_to_transform=[1]), ("'layers_to_transform'", "merge it")),
        (set_config(lora_bias=True), ("'lora_bias'", "merge it")),
        (set_config(of_tomorrow=True), ("'of_tomorrow'", "merge it")),
        (set_config(init_lora_weights="pissa"), ("init_lora_weights", "merge it")),
        (set_config(target_modules=r".*\.query"), ("target_modules", "merge it")),
        (set_config(target_modules=None), ("target_modules", "merge it")),
        (set_config(peft_type="IA3"), ("'IA3'", "merge it")),
        (put(f"{QUERY}.lora_magnitude_vector", 32), ("lora_magnitude_vector", "merge it")),
        (put("embeddings.word_embeddings.lora_embedding_A", 4, 32), ("lora_embedding_A", "merge it")),
        (put(f"{QUERY}.lora_B.bias", 32), ("lora_B.bias", "merge it")),
    ],
)
def test_an_adapter_of_another_kind_is_unsupported(
    folder: Path, breaking: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    breaking(folder)
    refused(folder, *words, error=UnsupportedError)


def test_a_pair_on_a_table_is_unsupported(base: Path, tmp_path: Path) -> None:
    folder = adapt(base, tmp_path / "adapter", target_modules=["query"])
    rename("attention.self.query.", "attention.output.LayerNorm.")(folder)
    refused(folder, "linear layers", "LayerNorm", error=UnsupportedError)


def test_a_head_that_may_be_the_embeddings_is_unsupported(base: Path, folder: Path) -> None:
    rows = len(load_file(base / "model.safetensors")["embeddings.word_embeddings.weight"])
    rename(START, f"{START}bert.")(folder)
    sound = shutil.copytree(folder, folder.parent / "sound")
    put("cls.predictions.transform.dense.weight", 32, 32)(sound)
    open_checkpoint(sound)
    put("cls.predictions.decoder.weight", rows, 32)(folder)
    refused(folder, "cls.predictions.decoder.weight", "merge it", error=UnsupportedError)


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (set_config(r=3), ("shape (3, 32)", "got (4, 32)")),
        (set_config(r=True), ("rank r",)),
        (set_config(lora_alpha=None), ("lora_alpha", "None")),
        (set_config(lora_alpha=float("inf")), ("lora_alpha", "inf")),
        (set_config(use_rslora="yes"), ("use_rslora", "'yes'")),
        (set_config(target_modules=["value"]), ("target_modules", "query.lora_")),
        (set_config(target_modules=["uery"]), ("target_modules", "query.lora_")),
        (set_config(target_modules=[7]), ("target_modules",)),
        (set_config(modules_to_save=["query"]), ("target_modules", "query.lora_")),
        (set_config(modules_to_save=["que.y"]), ("target_modules", "query.lora_")),
        (set_config(modules_to_save=["attention"]), ("target_modules", "query.lora_")),
        (set_config(modules_to_save=["(a+)+"]), ("modules_to_save",)),
        (set_config(modules_to_save=["a"] * 1025), ("1,024 names", "1,025")),
        (edit_tensors(lambda held: held.pop(f"{START}{QUERY}.lora_A.weight")), ("A and B", "lora_B.weight' is alone")),
        (put(f"{QUERY}.lora_B.weight", 8, 4), ("shape (32, 4)", "got (8, 4)")),
        (put(f"{QUERY}.lora_A.weight", 4), ("shape (4, 32)", "got (4,)")),
        (put("pooler.dense.weight", 32, 8), ("pooler.dense.weight", "got (32, 8)")),
        (put("pooler.extra.weight", 32), ("has none for", "pooler.extra.weight")),
        (put("encoder.layer.7.attention.self.query.lora_A.weight", 4, 32), ("alone",)),
        (put(f"{QUERY}.weight", 32, 32), ("neither", f"{QUERY}.weight")),
        (put(f"{QUERY}.bias", 32), ("neither", f"{QUERY}.bias")),
        (put("pooler.dense.base_layer.bias", 32), ("neither", "pooler.dense.base_layer.bias")),
        (put(f"{QUERY}.base_layer.weight", 32, 32), ("has none for", "base_layer.weight")),
        (rename("layer.1.", "layer.7."), ("has none for", "layer.7.")),
        (rename(START, ""), ("begin with base_model.model.",)),
        (rename(f"{START}encoder", f"{START}coder"), ("none", "fits")),
        (double, ("bert.", "has it not")),
        (edit_tensors(lambda held: held.clear()), ("none", "fits")),
        (
            edit_tensors(lambda held: held.update({name: weight.int() for name, weight in held.items()})),
            ("floating-point", "lora_"),
        ),
        (edit_tensors(lambda held: held[f"{START}{QUERY}.lora_A.weight"].fill_(float("nan"))), ("finite", QUERY)),
        (edit_tensors(lambda held: [weight.fill_(1e30) for weight in held.values()]), ("finite", QUERY)),
        (lambda folder: (folder / WEIGHTS).unlink(), (WEIGHTS, "found none")),
        (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), ("adapter_model.bin", "can run code")),
    ],
)
def test_an_adapter_that_lies_is_refused(
    folder: Path, breaking: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    breaking(folder)
    refused(folder, *words)


def test_a_rank_beyond_its_weight_is_refused(base: Path, tmp_path: Path) -> None:
    open_checkpoint(adapt(base, tmp_path / "full", target_modules=["query"], r=32))
    refused(adapt(base, tmp_path / "more", target_modules=["query"], r=33), "rank", "33")


def test_an_adapter_of_a_head_alone_is_refused(folder: Path) -> None:
    edit_tensors(lambda held: held.clear())(folder)
    put("classifier.weight", 2, 32)(folder)
    refused(folder, "none", "fits")


def test_an_adapter_of_another_encoder_is_refused(folder: Path, checkpoints: dict[str, Path]) -> None:
    refused(folder, "for this encoder", base=checkpoints["gpt2"])
