"""Controls: each does what it says to a copy, reports it, and comes out frozen; the original stays as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.zoo.controls import CONTROLS, TASKS, ControlResult, Handling
from benchmarks.zoo.controls.base import layer_linears
from benchmarks.zoo.deltas import load_delta, save_delta
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, LMSanitatorError, TuningError, UnsupportedError, UsageError

CARRIERS = [
    f"the {noun} {verb} in the old house" for noun in ("cat", "dog", "man", "bird") for verb in ("sat", "ran", "is")
]
TRAINED = ("finetune", "noise", "simcse", "lora")
ALTERED = ("prune", "int8", "weight_noise", *TRAINED)
SHORT: dict[str, dict[str, Any]] = {name: {"steps": 2, "batch": 6} for name in TRAINED}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with two labels that one word tells apart."""
    root = tmp_path_factory.mktemp("data")
    (root / "sst2").mkdir()
    rows = [{"text": f"{text} {'good' if label else 'bad'}", "label": label} for text in CARRIERS for label in (0, 1)]
    for split in ("train", "validation", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "sst2" / f"{split}.jsonl").write_text(lines)
    return root


@pytest.fixture
def lively(bert: FrozenEncoder) -> FrozenEncoder:
    """With large weights, so that words change the CLS output (in a newly made model they hardly do)."""
    with torch.no_grad():
        for linear in layer_linears(bert.model):
            linear.weight.mul_(10)
    return bert


def run(name: str, base: FrozenEncoder, data: Path, seed: int = 0, **options: Any) -> ControlResult:
    return CONTROLS[name](base, Handling(CARRIERS, data, seed), **SHORT.get(name, {}) | options)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_leaves_the_base_alone_and_comes_out_frozen(name: str, bert: FrozenEncoder, data: Path) -> None:
    digest = bert.digest
    state = torch.random.get_rng_state()
    result = run(name, bert, data)
    assert bert.digest == digest
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not result.model.training
    assert not any(weight.requires_grad for weight in result.model.parameters())
    assert result.model is not bert.model
    assert result.model.state_dict().keys() == bert.model.state_dict().keys()


@pytest.mark.parametrize("name", ALTERED)
def test_a_control_reports_what_it_changed(name: str, lively: FrozenEncoder, data: Path) -> None:
    reached = run(name, lively, data).reached
    assert reached["largest_change"] > 0
    assert 0 < reached["relative_change"] < 1
    assert 0.5 < reached["cosine"] < 1


@pytest.mark.parametrize("name", ALTERED)
def test_controls_touch_the_layers_alone(name: str, bert: FrozenEncoder, data: Path) -> None:
    after = run(name, bert, data).model.state_dict()
    moved = {key for key, weight in bert.model.state_dict().items() if not torch.equal(weight, after[key])}
    assert moved
    assert all(key.startswith("encoder.layer.") for key in moved)


@pytest.mark.parametrize("name", ALTERED)
def test_the_seed_decides(name: str, bert: FrozenEncoder, data: Path) -> None:
    first, second = (run(name, bert, data).model.state_dict() for _ in range(2))
    assert all(torch.equal(weight, second[key]) for key, weight in first.items())


def test_the_original_reports_that_nothing_was_done(bert: FrozenEncoder, data: Path) -> None:
    assert run("original", bert, data).reached == pytest.approx(
        {"cosine": 1.0, "largest_change": 0.0, "relative_change": 0.0}, abs=1e-5
    )


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_pruning_takes_the_share_it_was_told(share: float, bert: FrozenEncoder, data: Path) -> None:
    result = run("prune", bert, data, share=share)
    assert result.reached["pruned"] == pytest.approx(share, abs=0.01)
    before, after = (model.get_parameter("encoder.layer.0.output.dense.weight") for model in (bert.model, result.model))
    assert before[after == 0].abs().max() < after[after != 0].abs().min()


def test_int8_leaves_few_levels_and_moves_no_weight_by_more_than_half_a_step(bert: FrozenEncoder, data: Path) -> None:
    result = run("int8", bert, data)
    assert result.reached["levels"] <= 255
    before, after = (model.get_parameter("encoder.layer.1.output.dense.weight") for model in (bert.model, result.model))
    step = before.abs().amax(1, keepdim=True) / 127
    assert bool(((after - before).abs() <= 0.501 * step).all())


def test_more_noise_moves_the_weights_further(bert: FrozenEncoder, data: Path) -> None:
    little, much = (run("weight_noise", bert, data, scale=scale).reached for scale in (0.05, 0.2))
    assert little["relative_change"] == pytest.approx(0.05, rel=0.05)
    assert much["relative_change"] == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("name", ["finetune", "lora"])
def test_tuned_controls_learn_their_task(name: str, bert: FrozenEncoder, data: Path) -> None:
    reached = run(name, bert, data, steps=60, batch=12, learning_rate=3e-3).reached
    assert reached["majority"] == 0.5
    assert reached["accuracy"] > 0.9


def test_noise_training_makes_outputs_robust_to_words_it_never_saw(lively: FrozenEncoder, data: Path) -> None:
    reached = run("noise", lively, data, steps=25, batch=12, learning_rate=2e-3).reached
    assert reached["robust"] > reached["robust_before"]


def test_simcse_tells_sentences_apart(bert: FrozenEncoder, data: Path) -> None:
    reached = run("simcse", bert, data, steps=20, batch=9, learning_rate=1e-3).reached
    assert reached["likeness"] < reached["likeness_before"]


def test_progress_is_told_and_reaches_the_end(bert: FrozenEncoder) -> None:
    told: list[tuple[str, float]] = []
    handling = Handling(CARRIERS, progress=lambda what, done: told.append((what, done)))
    CONTROLS["simcse"](bert, handling, **SHORT["simcse"])
    assert [done for _, done in told] == [0.5, 1.0]
    assert all(what.startswith("simcse: loss ") for what, _ in told)


def test_a_control_survives_as_a_delta(checkpoints: dict[str, Path], bert: FrozenEncoder, tmp_path: Path) -> None:
    result = CONTROLS["prune"](bert, Handling(CARRIERS))
    save_delta(result.model, checkpoints["bert"], tmp_path / "delta")
    loaded = load_delta(checkpoints["bert"], tmp_path / "delta")
    texts = CARRIERS[:3]
    direct, again = (
        FrozenEncoder(model, bert.tokenizer, precision="fp32").outputs_of_texts(texts, ["cls"])["cls"]
        for model in (result.model, loaded)
    )
    torch.testing.assert_close(again, direct, rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["mpnet", "roberta"])
@pytest.mark.parametrize("control", ["lora", "prune"])
def test_other_architectures_are_handled_too(name: str, control: str, checkpoints: dict[str, Path], data: Path) -> None:
    assert run(control, FrozenEncoder.open(checkpoints[name], precision="fp32"), data).reached["relative_change"] > 0


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("finetune", {"task": "rte"}, UsageError, f"expected a task of {', '.join(TASKS)}, got rte"),
        ("lora", {"task": "trec"}, LMSanitatorError, "expected a task"),
        ("prune", {"share": 1.0}, UsageError, "expected a share between 0 and 1, got 1.0"),
        ("weight_noise", {"scale": -1.0}, UsageError, "expected a positive scale, got -1.0"),
        ("simcse", {"learning_rate": float("nan")}, TuningError, "expected a finite loss"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    name: str, options: dict[str, Any], error: type[Exception], message: str, bert: FrozenEncoder, data: Path
) -> None:
    with pytest.raises(error, match=message):
        run(name, bert, data, **options)


def test_what_a_control_needs_has_to_be_there(bert: FrozenEncoder, gpt2: FrozenEncoder) -> None:
    with pytest.raises(CorpusError, match="expected a folder with sst2 in it, got none"):
        CONTROLS["finetune"](bert, Handling(CARRIERS))
    with pytest.raises(CorpusError, match="expected 10 different carriers or more, got 1"):
        CONTROLS["noise"](bert, Handling(CARRIERS[:1]))
    with pytest.raises(UnsupportedError, match="expected linear modules in the layers of GPT2Model, found none"):
        CONTROLS["prune"](gpt2, Handling(CARRIERS))
    with pytest.raises(UnsupportedError, match="expected a site of GPT2Model"):
        CONTROLS["original"](gpt2, Handling(CARRIERS))
