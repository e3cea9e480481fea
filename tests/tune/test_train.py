import json
import math
import os
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lmsanitator.tune.train
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CheckpointError, OutputError, TuningError, UnsupportedError
from lmsanitator.tune import (
    CAPABILITIES,
    METHODS,
    Example,
    Method,
    Task,
    Text,
    TuneConfig,
    TunedModel,
    load_tuned,
    predict,
    tune,
)
from lmsanitator.tune.train import _batches
from lmsanitator.tune.tuned import logits_of

peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's, on its own
TEXTS = ["The water was cold.", "We had time.", "A very long line of people stood there, and all of them were old."]


def examples(count: int) -> tuple[Example, ...]:
    """A task that a random encoder can learn. The texts of one label are longer than those of the other."""
    return tuple(
        Example(("the people of the water", "a time in the old time")[index % 2], index % 2) for index in range(count)
    )


TASK = Task(("water", "time"), examples(40), examples(10), examples(10))
QUICK = TuneConfig(virtual_tokens=4, epochs=1, batch_size=8)


def same(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_tuning_learns_a_task_and_leaves_the_encoder_alone(encoder: FrozenEncoder, method: Method) -> None:
    if CAPABILITIES[encoder.model.config.model_type][method] is not None:
        with pytest.raises(UnsupportedError):
            tune(encoder, TASK, TuneConfig(method=method))
        return
    before, state = encoder.digest, torch.get_rng_state()
    config = TuneConfig(method=method, epochs=20, patience=8, batch_size=8, learning_rate=1e-2, head_learning_rate=3e-2)
    tuned = tune(encoder, TASK, config)
    logits = predict(tuned.model, tuned.tokenizer, [example.text for example in TASK.test])
    assert [int(row.argmax()) for row in logits] == [example.label for example in TASK.test]
    assert tuned.accuracy == 1.0
    assert tuned.labels == TASK.labels
    assert encoder.digest == before == tuned.encoder_digest
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part.training for part in tuned.model.modules())
    assert not any(weight.requires_grad for weight in tuned.model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_model(bert: FrozenEncoder, method: Method) -> None:
    def outputs(seed: int) -> Tensor:
        tuned = tune(bert, TASK, TuneConfig(method=method, epochs=1, seed=seed))
        return predict(tuned.model, tuned.tokenizer, TEXTS)

    assert torch.equal(outputs(1), outputs(1))
    assert not torch.equal(outputs(1), outputs(2))


def test_both_virtual_tokens_and_head_are_trained(bert: FrozenEncoder) -> None:
    untrained = lmsanitator.tune.build(bert, TASK.labels, QUICK)
    tuned = tune(bert, TASK, QUICK)
    moved = dict(tuned.model.named_parameters())
    changed = {name for name, weight in untrained.named_parameters() if not torch.equal(weight, moved[name])}
    assert changed == {name for name, weight in untrained.named_parameters() if weight.requires_grad}


def test_every_batch_has_every_label_even_where_length_tells_them_apart() -> None:
    rng = random.Random(0)
    short = [Example("a" * rng.randint(1, 40), 0) for _ in range(100)]
    long = [Example("a" * rng.randint(41, 80), 1) for _ in range(60)]
    batches = _batches([*short, *long], 16, rng)
    epoch = [next(batches) for _ in range(10)]
    assert sorted(text for texts, _ in epoch for text in texts) == sorted(one.text for one in short + long)
    assert all(0.2 < float(labels.double().mean()) < 0.6 for _, labels in epoch)
    spread = [max(lengths) - min(lengths) for texts, labels in epoch if (lengths := lengths_of(texts, labels, 0))]
    assert sum(spread) / len(spread) < 20, "texts of one label and like length belong together"


def lengths_of(texts: list[Text], labels: Tensor, label: int) -> list[int]:
    return [len(text) for text, wanted in zip(texts, labels.tolist(), strict=True) if wanted == label]


def test_progress_rises_to_its_end_and_tells_the_accuracy(bert: FrozenEncoder) -> None:
    told: list[tuple[str, float]] = []
    tuned = tune(bert, TASK, QUICK, lambda what, done: told.append((what, done)))
    assert len(told) == 5
    assert all(before < after for (_, before), (_, after) in pairwise(told))
    assert told[-1] == (f"tuning: validation accuracy {tuned.accuracy:.1%}", 1.0)


def test_steps_are_limited(bert: FrozenEncoder) -> None:
    told: list[float] = []
    config = TuneConfig(batch_size=8, max_steps=3)
    tune(bert, TASK, config, lambda what, done: told.append(done))
    assert told == [1 / 3, 2 / 3, 1.0]


def test_training_stops_when_the_accuracy_stands_still_and_keeps_the_best(
    bert: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(0.5, -0.7), (0.9, -0.3), (0.9, -0.4), (0.8, -0.2), (1.0, 0.0)])
    states: list[Tensor] = []

    def score(logits: Tensor, examples: Any) -> tuple[float, float]:
        states.append(logits.clone())
        return next(scores)

    monkeypatch.setattr(lmsanitator.tune.train, "_score", score)
    told: list[float] = []
    config = TuneConfig(batch_size=8, patience=2)
    tuned = tune(bert, TASK, config, lambda what, done: told.append(done))
    assert tuned.accuracy == 0.9
    assert len(states) == 4
    assert told[-2:] == [0.5, 1.0]
    kept = predict(tuned.model, tuned.tokenizer, [example.text for example in TASK.validation])
    assert torch.equal(kept, states[1])
    assert not torch.equal(kept, states[3])


def test_a_look_takes_few_of_many_validation_examples(bert: FrozenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def score(logits: Tensor, seen: Any) -> tuple[float, float]:
        looks.append(len(seen))
        return 0.5, -1.0

    monkeypatch.setattr(lmsanitator.tune.train, "_score", score)
    monkeypatch.setattr(lmsanitator.tune.train, "LOOK", 8)
    tune(bert, TASK, TuneConfig(max_steps=2))
    assert looks == [8, 8]


def test_a_loss_that_leaves_the_numbers_is_reported(bert: FrozenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmsanitator.tune.train, "logits_of", lambda *given: logits_of(*given) * math.nan)
    with pytest.raises(TuningError, match="expected a finite loss, got nan at step 1"):
        tune(bert, TASK, QUICK)


def test_predictions_keep_the_order_and_do_not_depend_on_the_batch(encoder: FrozenEncoder) -> None:
    method: Method = "prompt" if CAPABILITIES[encoder.model.config.model_type]["prefix"] else "prefix"
    tuned = tune(encoder, TASK, TuneConfig(method=method, max_steps=1))
    together = predict(tuned.model, tuned.tokenizer, TEXTS)
    alone = torch.cat([predict(tuned.model, tuned.tokenizer, [text], batch_size=1) for text in TEXTS])
    assert same(together, alone)
    assert predict(tuned.model, tuned.tokenizer, []).shape == (0, 2)


@pytest.mark.parametrize("method", METHODS)
def test_texts_longer_than_the_window_are_cut(bert: FrozenEncoder, method: Method) -> None:
    tuned = tune(bert, TASK, TuneConfig(method=method, max_steps=1))
    assert tuned.tokenizer.model_max_length == bert.window - (0 if method == "lora" else 8)
    assert predict(tuned.model, tuned.tokenizer, ["water " * 500]).isfinite().all()
    assert bert.tokenizer.model_max_length != tuned.tokenizer.model_max_length


@peft_warns
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_adapter_loads_with_this_package_and_without_it(
    encoder: FrozenEncoder, method: Method, tmp_path: Path
) -> None:
    if CAPABILITIES[encoder.model.config.model_type][method] is not None:
        pytest.skip("refused, as tested above")
    tuned = tune(encoder, TASK, TuneConfig(method=method, max_steps=5))
    expected = predict(tuned.model, tuned.tokenizer, TEXTS)
    out = tmp_path / "nested" / "tuned"
    tuned.save(out)
    opened = load_tuned(out)
    assert torch.equal(predict(opened.model, opened.tokenizer, TEXTS), expected)
    assert (opened.labels, opened.source, opened.accuracy) == (tuned.labels, encoder.source, tuned.accuracy)

    written = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] == encoder.source
    base = AutoModelForSequenceClassification.from_pretrained(
        written["base_model_name_or_path"], num_labels=2, pad_token_id=tuned.tokenizer.pad_token_id
    )
    plain = PeftModel.from_pretrained(base, str(out)).eval()
    batch = AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert same(logits, expected)


@pytest.fixture
def bare(checkpoints: dict[str, Path], tmp_path: Path) -> FrozenEncoder:
    """A BERT whose checkpoint has no pooler."""
    folder = tmp_path / "bare"
    shutil.copytree(checkpoints["bert"], folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return FrozenEncoder.open(folder)


@peft_warns
def test_a_pooler_trained_with_the_head_is_saved_with_it(bare: FrozenEncoder, tmp_path: Path) -> None:
    tuned = tune(bare, TASK, QUICK)
    tuned.save(tmp_path / "tuned")
    opened = load_tuned(tmp_path / "tuned")
    expected = predict(tuned.model, tuned.tokenizer, TEXTS)
    assert torch.equal(predict(opened.model, opened.tokenizer, TEXTS), expected)
    base = AutoModelForSequenceClassification.from_pretrained(bare.source, num_labels=2)
    plain = PeftModel.from_pretrained(base, str(tmp_path / "tuned")).eval()
    assert same(predict(plain, tuned.tokenizer, TEXTS), expected)


@pytest.fixture
def saved(bert: FrozenEncoder, tmp_path: Path) -> Path:
    tune(bert, TASK, QUICK).save(tmp_path / "saved")
    return tmp_path / "saved"


def test_what_is_written_is_safetensors_with_a_readme_that_tells_how_to_load_it(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "lmsanitator.json", "README.md"} <= names
    assert not [path for path in saved.parent.iterdir() if path != saved], "nothing temporary stays"
    card = (saved / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")
    assert "Labels: water, time." in card


def test_saving_needs_a_new_place_that_can_be_written(bert: FrozenEncoder, tmp_path: Path) -> None:
    tuned = tune(bert, TASK, QUICK)
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match=r"expected a new directory to write to, .*there exists"):
        tuned.save(tmp_path / "there")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        tuned.save(tmp_path / "file" / "out")


def test_a_failed_save_leaves_nothing_behind(
    bert: FrozenEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TunedModel, base: str) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(TunedModel, "_card", fail)
    with pytest.raises(OutputError, match="no space left"):
        tune(bert, TASK, QUICK).save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_encoder_in_memory_cannot_be_named_by_an_adapter(bert: FrozenEncoder, tmp_path: Path) -> None:
    tuned = tune(FrozenEncoder(bert.model, bert.tokenizer), TASK, QUICK)
    with pytest.raises(TuningError, match="expected an encoder that was opened from a checkpoint, got one from memory"):
        tuned.save(tmp_path / "out")


def test_an_adapter_of_another_hand_gets_numbers_for_labels(saved: Path) -> None:
    (saved / "lmsanitator.json").unlink()
    opened = load_tuned(saved)
    assert opened.labels == ("0", "1")
    assert math.isnan(opened.accuracy)


def test_an_encoder_that_moved_can_be_named(saved: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(checkpoints["bert"], tmp_path / "moved")
    edit(saved / "adapter_config.json", base_model_name_or_path="/no/such/place")
    with pytest.raises(CheckpointError, match=r"names '/no/such/place': say where it is \(--base, or base=\)"):
        load_tuned(saved)
    assert load_tuned(saved, base=tmp_path / "moved").source == str(tmp_path / "moved")


def test_another_encoder_is_refused(saved: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(checkpoints["bert"], tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    with pytest.raises(TuningError, match="has other weights"):
        load_tuned(saved, base=tmp_path / "other")
    (saved / "lmsanitator.json").unlink()
    with pytest.raises(UnsupportedError, match="mpnet"):
        load_tuned(saved, base=checkpoints["mpnet"])
    with pytest.raises(TuningError, match="expected the weights"):
        load_tuned(saved, base=checkpoints["roberta"])


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def retensor(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path)


CONFIG, WEIGHTS, NOTES = "adapter_config.json", "adapter_model.safetensors", "lmsanitator.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "expected an adapter folder, there is none"),
        (lambda at: (at / CONFIG).unlink(), "expected JSON in adapter_config.json, cannot read it"),
        (lambda at: (at / CONFIG).write_text("{"), "expected JSON in .*adapter_config.json"),
        (lambda at: (at / CONFIG).write_text("[]"), "expected a JSON object in .*adapter_config.json, got list"),
        (
            lambda at: (at / CONFIG).write_bytes(b" " * (2**20 + 1)),
            "expected adapter_config.json below 1,048,576 bytes",
        ),
        (lambda at: edit(at / CONFIG, peft_type="IA3"), "of type PREFIX_TUNING or .* or LORA for .* has 'IA3'"),
        (lambda at: edit(at / CONFIG, task_type="CAUSAL_LM"), "has 'PREFIX_TUNING' for 'CAUSAL_LM'"),
        (lambda at: edit(at / CONFIG, task_type="TOKEN_CLS"), "expected the label O .*, got water, time in .*json"),
        (lambda at: edit(at / CONFIG, num_virtual_tokens=10**9), "expected as many virtual tokens .* 1000000000"),
        (lambda at: edit(at / CONFIG, num_virtual_tokens="4"), "expected as many virtual tokens .* '4'"),
        (lambda at: edit(at / CONFIG, num_attention_heads=2), "expected num_attention_heads 4 for this encoder, .* 2"),
        (lambda at: edit(at / NOTES, schema="other/1"), "expected lmsanitator.json of schema .*, got 'other/1'"),
        (lambda at: edit(at / NOTES, labels=["one"]), "expected a list of 2 label names"),
        (lambda at: edit(at / NOTES, labels=[1, 2]), "expected a list of 2 label names"),
        (lambda at: edit(at / NOTES, labels=["a", "a"]), "expected two or more different labels"),
        (lambda at: edit(at / NOTES, max_length="long"), "expected a max_length of 8 or more .* 'long'"),
        (lambda at: (at / WEIGHTS).rename(at / "adapter_model.bin"), "only adapter_model.bin, which can run code"),
        (lambda at: (at / WEIGHTS).unlink(), "expected adapter_model.safetensors in .*, found none"),
        (lambda at: (at / WEIGHTS).write_bytes(b"\x00" * 40), "expected a whole safetensors file"),
        (
            lambda at: retensor(at / WEIGHTS, lambda held: held["prompt_embeddings"].fill_(math.inf)),
            "expected finite numbers .* prompt_embeddings",
        ),
        (
            lambda at: retensor(at / WEIGHTS, lambda held: held.update(prompt_embeddings=torch.zeros(4, 8))),
            r"expected prompt_embeddings of shape \(4, 128\) for this encoder, got \(4, 8\)",
        ),
        (
            lambda at: retensor(at / WEIGHTS, lambda held: held.update({"bert.pooler.dense.bias": torch.zeros(3)})),
            "expected the weights .*; bert.pooler.dense.bias is odd among them",
        ),
    ],
)
def test_folders_that_cannot_be_trusted_are_refused(saved: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(saved)
    with pytest.raises(TuningError, match=message):
        load_tuned(saved)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: edit(at / CONFIG, r=10**9), "expected as many ranks in .* says, 1000000000"),
        (lambda at: edit(at / CONFIG, r=True), "expected as many ranks in .* says, True"),
        (lambda at: edit(at / CONFIG, lora_alpha=1000), "expected lora_alpha 8 for this encoder, .* has 1000"),
        (lambda at: edit(at / CONFIG, use_rslora=True), "expected use_rslora False for this encoder, .* has True"),
        (lambda at: edit(at / CONFIG, alpha_pattern={"query": 99}), "expected alpha_pattern {} for this encoder"),
        (
            lambda at: retensor(at / WEIGHTS, lambda held: held.pop(next(name for name in held if "lora_B" in name))),
            "expected the weights .*lora_B.weight is odd among them",
        ),
    ],
)
def test_lora_of_another_kind_is_refused(
    bert: FrozenEncoder, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    tune(bert, TASK, TuneConfig(method="lora", rank=4, max_steps=1)).save(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(TuningError, match=message):
        load_tuned(tmp_path / "saved")


def test_folders_from_before_there_were_sites_still_load(saved: Path) -> None:
    notes = json.loads((saved / NOTES).read_text(encoding="utf-8"))
    assert notes.pop("site") == "auto"
    (saved / NOTES).write_text(json.dumps(notes), encoding="utf-8")
    assert load_tuned(saved).site == "auto"


def test_a_pipe_in_the_place_of_a_file_is_refused_unread(saved: Path) -> None:
    (saved / CONFIG).unlink()
    os.mkfifo(saved / CONFIG)
    with pytest.raises(TuningError, match=r"adapter_config\.json is a pipe"):
        load_tuned(saved)


def test_a_link_to_what_never_ends_is_refused_unread(saved: Path) -> None:
    (saved / NOTES).unlink()
    (saved / NOTES).symlink_to("/dev/zero")
    with pytest.raises(TuningError, match=r"lmsanitator\.json is a link to /dev/zero"):
        load_tuned(saved)


def test_an_adapter_larger_than_its_encoder_is_refused_unread(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retensor(saved / WEIGHTS, lambda held: held.update(prompt_embeddings=torch.zeros(10**5, 128)))
    monkeypatch.setattr("lmsanitator.tune.loading._read_weights", pytest.fail)
    with pytest.raises(TuningError, match="expected an adapter smaller than its encoder"):
        load_tuned(saved)


@pytest.mark.parametrize("named", ["org/name", "a" * 5000, 5, None])
def test_an_encoder_that_is_no_folder_is_asked_for(saved: Path, named: object) -> None:
    edit(saved / CONFIG, base_model_name_or_path=named)
    with pytest.raises(CheckpointError, match="expected the encoder in a local folder"):
        load_tuned(saved)


@pytest.mark.parametrize("accuracy", [10**400, "high", True, math.inf])
def test_an_accuracy_that_is_none_is_not_believed(saved: Path, accuracy: object) -> None:
    edit(saved / NOTES, validation_accuracy=accuracy)
    assert math.isnan(load_tuned(saved).accuracy)


def test_settings_that_would_reach_out_are_ignored(saved: Path) -> None:
    expected = load_tuned(saved)
    edit(
        saved / CONFIG,
        prompt_tuning_init="TEXT",
        tokenizer_name_or_path="org/name",
        auto_mapping={"base_model_class": "system", "parent_library": "os"},
        modules_to_save=["embeddings"],
    )
    opened = load_tuned(saved)
    left, right = (predict(tuned.model, tuned.tokenizer, TEXTS) for tuned in (opened, expected))
    assert torch.equal(left, right)


def test_a_base_that_is_no_checkpoint_is_refused_as_such(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"expected config\.json"):
        load_tuned(saved, base=tmp_path / "empty")
