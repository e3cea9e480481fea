from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModelForSequenceClassification
from transformers import AutoConfig, AutoModel, PreTrainedModel

import lmsanitator.tune.classifier
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import TuningError, UnsupportedError, UsageError
from lmsanitator.tune import CAPABILITIES, METHODS, Method, TuneConfig, build, check_supported
from lmsanitator.tune.adapter import classifier_of, without_adapter
from lmsanitator.tune.tuned import logits_of

LABELS = ("food", "money", "sport")
SHORT = "The lamp by the river was old."
LONG = "Could you pass the bread and the water to the people at the table over there, please?"
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "albert": SIZES | {"embedding_size": 16},
    "big_bird": SIZES | {"attention_type": "original_full"},
    "convbert": SIZES | {"embedding_size": 32},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 80},
    "electra": SIZES | {"embedding_size": 16},
    "gemma3_text": SIZES | {"num_key_value_heads": 1, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 80},
    "mistral": SIZES | {"num_key_value_heads": 2},
    "mobilebert": SIZES | {"embedding_size": 32, "intra_bottleneck_size": 32},
    "modernbert": SIZES | {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "opt": SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen2": SIZES | {"num_key_value_heads": 2},
    "rembert": SIZES | {"input_embedding_size": 16},
    "roformer": SIZES | {"embedding_size": 32},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
}


def small(kind: str, like: FrozenEncoder) -> FrozenEncoder:
    """A small random encoder of any architecture, with the tokenizer of another."""
    sizes = SPECIAL.get(kind, SIZES) | {"vocab_size": len(like.tokenizer), "pad_token_id": like.tokenizer.pad_token_id}
    torch.manual_seed(0)
    return FrozenEncoder(AutoModel.from_config(AutoConfig.for_model(kind, **sizes)), like.tokenizer, precision="fp32")


def ignores_padding(encoder: FrozenEncoder, method: Method) -> bool:
    """Whether padding leaves the logits alone; that virtual tokens learn and matter is asserted on the way."""
    model = build(encoder, LABELS, TuneConfig(method=method, virtual_tokens=4))
    alone = logits_of(model, encoder.tokenizer, [SHORT])
    padded = logits_of(model, encoder.tokenizer, [SHORT, LONG])[:1]
    alone.sum().backward()  # type: ignore[no-untyped-call]
    # LoRA's first factor gets no gradient while the second is zero, as it is at the start
    weights = [weight for name, weight in model.named_parameters() if "prompt_encoder" in name or "lora_B" in name]
    assert weights[0].grad is not None
    assert bool(weights[0].grad.abs().sum() > 0)
    with torch.no_grad():
        for weight in weights if method == "lora" else weights[:1]:
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    moved = logits_of(model, encoder.tokenizer, [SHORT])
    assert not torch.allclose(alone, moved, atol=1e-6)
    return torch.allclose(alone, padded, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", CAPABILITIES)
def test_the_capability_table_says_what_works(
    kind: str, method: Method, bert: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmsanitator.tune.classifier, "check_supported", lambda *given: None)
    encoder, reason = small(kind, bert), CAPABILITIES[kind][method]
    if reason is not None and ("past keys" in reason or "bare" in reason):
        with pytest.raises((TypeError, ValueError, IndexError)):
            ignores_padding(encoder, method)
    else:
        assert ignores_padding(encoder, method) == (reason is None)


@pytest.mark.parametrize(
    ("kind", "method", "message"),
    [
        ("mpnet", "prefix", "expected a tuning method that mpnet takes, got prefix: .* past keys .*; use prompt"),
        (
            "gpt2",
            "prompt",
            "expected a tuning method that gpt2 takes, got prompt: .* the last position, .*; use prefix",
        ),
        ("xlnet", "prompt", "expected a tuning method that xlnet takes, got prompt: .* prepended a prompt$"),
        ("nystromformer", "prompt", "expected an architecture that tuning was tried on, got nystromformer"),
    ],
)
def test_what_does_not_work_is_refused_with_the_reason(
    kind: str, method: Method, message: str, bert: FrozenEncoder
) -> None:
    encoder = small(kind, bert)
    with pytest.raises(UnsupportedError, match=message):
        check_supported(encoder, method)
    with pytest.raises(UnsupportedError, match=message):
        build(encoder, LABELS, TuneConfig(method=method))


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    chosen: Method = request.param
    return chosen


def trainable(model: PeftModelForSequenceClassification) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_the_encoder_is_shared_frozen_and_unchanged(bert: FrozenEncoder, method: Method) -> None:
    before = bert.digest
    model = build(bert, LABELS, TuneConfig(method=method))
    backbone = classifier_of(model).base_model
    assert isinstance(backbone, PreTrainedModel)
    inside = without_adapter(backbone).state_dict()
    for name, weight in bert.model.state_dict().items():
        assert inside[name].data_ptr() == weight.data_ptr()
    inner = "base_model.model" if method == "lora" else "base_model"
    head = {f"{inner}.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")}
    adapter = trainable(model) - head
    assert head < trainable(model)
    assert all(".lora_" in name if method == "lora" else "prompt_encoder" in name for name in adapter)
    assert bert.digest == before
    assert not any(part.training for part in model.modules())


def test_the_head_carries_the_labels(bert: FrozenEncoder, method: Method) -> None:
    model = build(bert, LABELS, TuneConfig(method=method))
    assert classifier_of(model).config.id2label == dict(enumerate(LABELS))
    assert logits_of(model, bert.tokenizer, [SHORT, LONG]).shape == (2, 3)


def test_a_prefix_starts_out_as_next_to_nothing(bert: FrozenEncoder) -> None:
    model = build(bert, LABELS, TuneConfig())
    weight = next(model.prompt_encoder.parameters()).detach()
    assert float(weight.abs().max()) < 0.2
    assert len({tuple(row.tolist()) for row in weight}) == 8, "virtual tokens that are alike would stay alike"


def test_initial_weights_come_from_the_seed_and_nothing_else(bert: FrozenEncoder, method: Method) -> None:
    def initial(seed: int) -> torch.Tensor:
        torch.manual_seed(99)
        state = torch.get_rng_state()
        model = build(bert, LABELS, TuneConfig(method=method, seed=seed))
        assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are not ours"
        return torch.cat([weight.flatten() for weight in model.parameters() if weight.requires_grad])

    torch.rand(3)
    assert torch.equal(initial(1), initial(1))
    assert not torch.equal(initial(1), initial(2))


@pytest.mark.parametrize("method", ["prompt", "p-tuning"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "xlnet"])
def test_a_head_on_the_last_token_takes_prompts_where_the_own_head_does_not(
    kind: str, method: Method, bert: FrozenEncoder
) -> None:
    encoder = small(kind, bert)
    config = TuneConfig(method=method, site="last", virtual_tokens=4)
    model = build(encoder, LABELS, config)
    alone = logits_of(model, encoder.tokenizer, [SHORT])
    assert torch.allclose(alone, logits_of(model, encoder.tokenizer, [SHORT, LONG])[:1], atol=1e-5)


def test_heads_that_peft_would_lose_are_saved(bert: FrozenEncoder) -> None:
    config = TuneConfig(method="prompt")
    for kind, part in (("deberta-v2", "pooler"), ("modernbert", "head"), ("distilbert", "pre_classifier")):
        names = trainable(build(small(kind, bert), LABELS, config))
        assert any(f".{part}.modules_to_save." in name for name in names), kind


def test_a_pooler_that_the_checkpoint_lacks_is_trained_with_the_head(bert: FrozenEncoder, method: Method) -> None:
    bare = FrozenEncoder(bert.model, bert.tokenizer, untrained=["pooler.dense.weight", "pooler.dense.bias"])
    model = build(bare, LABELS, TuneConfig(method=method))
    assert any("pooler.modules_to_save" in name for name in trainable(model))


def test_an_encoder_may_be_given_by_its_folder(checkpoints: dict[str, Path], bert: FrozenEncoder) -> None:
    opened = build(checkpoints["bert"], LABELS, TuneConfig())
    given = build(bert, LABELS, TuneConfig())
    texts = [SHORT, LONG]
    assert torch.equal(logits_of(opened, bert.tokenizer, texts), logits_of(given, bert.tokenizer, texts))
    assert opened.peft_config["default"].base_model_name_or_path == str(checkpoints["bert"].resolve())


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "a")])
def test_labels_must_be_two_or_more_and_differ(bert: FrozenEncoder, labels: tuple[str, ...]) -> None:
    with pytest.raises(TuningError, match="expected two or more different labels"):
        build(bert, labels, TuneConfig())


def test_virtual_tokens_must_leave_room(bert: FrozenEncoder) -> None:
    with pytest.raises(TuningError, match="expected at most 56 virtual tokens in this encoder, got 57"):
        build(bert, LABELS, TuneConfig(virtual_tokens=57))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"virtual_tokens": 0}, "expected virtual_tokens to be 1 or more, got 0"),
        ({"rank": 0}, "expected rank to be 1 or more, got 0"),
        ({"epochs": 0}, "expected epochs to be 1 or more"),
        ({"max_steps": 0}, "expected max_steps to be 1 or more"),
        ({"patience": 0}, "expected patience to be 1 or more"),
        ({"batch_size": -1}, "expected batch_size to be 1 or more, got -1"),
        ({"max_length": 7}, "expected max_length to be 8 or more"),
        ({"learning_rate": 0.0}, "expected learning_rate above 0 and at most 1, got 0.0"),
        ({"head_learning_rate": float("nan")}, "expected head_learning_rate above 0 and at most 1, got nan"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TuneConfig(**values)


def test_an_unknown_method_is_refused() -> None:
    config = TuneConfig()
    object.__setattr__(config, "method", "ia3")  # the tests' type checker would stop it before the config does
    with pytest.raises(UsageError, match="expected a tuning method of prefix, prompt, p-tuning, lora; got ia3"):
        config.__post_init__()
