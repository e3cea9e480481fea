"""A frozen encoder: every site from one forward pass, every token counted, nothing that can change."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.encoder import FrozenEncoder, Precision, Site, precision
from lmsanitator.errors import UnsupportedError

TEXTS = ["The train was late again.", "Soup!", "My neighbour's dog barks at every single bicycle that passes the gate."]
VECTOR_SITES: tuple[Site, ...] = ("cls", "pooler", "mask", "mean", "last")


def vector_sites(encoder: FrozenEncoder) -> list[Site]:
    return [site for site in VECTOR_SITES if site in encoder.sites]


def mask_positions(encoder: FrozenEncoder, mask: torch.Tensor) -> torch.Tensor | None:
    """Any real position will do where only the reading is under test."""
    return mask.sum(1) - 1 if "mask" in encoder.sites else None


def test_all_sites_come_from_one_forward_pass(encoder: FrozenEncoder) -> None:
    passes: list[object] = []
    encoder.model.register_forward_hook(lambda *_: passes.append(1))
    batch = encoder.encode(TEXTS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    out = encoder.outputs(ids, mask, encoder.sites, mask_positions=mask_positions(encoder, mask))
    assert len(passes) == 1
    assert set(out) == set(encoder.sites)
    assert out["tokens"].shape == (*ids.shape, encoder.hidden_size)
    for site in vector_sites(encoder):
        assert out[site].shape == (len(TEXTS), encoder.hidden_size)


def test_sites_are_what_they_are_called(bert: FrozenEncoder) -> None:
    batch = bert.encode(TEXTS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    out = bert.outputs(ids, mask, bert.sites, mask_positions=torch.tensor([1, 2, 3]))
    reference = bert.model(input_ids=ids, attention_mask=mask)
    hidden = reference.last_hidden_state
    assert_close(out["tokens"], hidden)
    assert_close(out["cls"], hidden[:, 0])
    assert_close(out["pooler"], reference.pooler_output)
    assert_close(out["mask"], torch.stack([hidden[0, 1], hidden[1, 2], hidden[2, 3]]))
    for row, length in enumerate(mask.sum(1).tolist()):
        assert_close(out["mean"][row], hidden[row, :length].mean(0))
        assert_close(out["last"][row], hidden[row, length - 1])


def test_every_architecture_has_the_sites_its_tokenizer_and_layers_allow(checkpoints: dict[str, Path]) -> None:
    for name in ("bert", "roberta", "mpnet"):
        assert FrozenEncoder.open(checkpoints[name]).sites == ("cls", "pooler", "mask", "mean", "last", "tokens")
    assert FrozenEncoder.open(checkpoints["gpt2"]).sites == ("mean", "last", "tokens")


def test_real_tokens_are_counted_and_padding_is_not(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert mask.sum() < mask.numel()
    encoder.outputs(ids, mask, ["mean"])
    assert (encoder.meter.forward, encoder.meter.backward) == (mask.sum(), 0)
    encoder.outputs(encoder.embed(ids).requires_grad_(), mask, ["mean"])
    assert (encoder.meter.forward, encoder.meter.backward) == (2 * mask.sum(), mask.sum())


def test_embeddings_give_the_same_outputs_as_their_ids(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    positions = mask_positions(encoder, mask)
    sites = vector_sites(encoder)
    by_ids = encoder.outputs(ids, mask, sites, mask_positions=positions)
    by_embeddings = encoder.outputs(encoder.embed(ids), mask, sites, mask_positions=positions)
    for site in sites:
        assert_close(by_embeddings[site], by_ids[site])


def test_padding_does_not_change_outputs(encoder: FrozenEncoder) -> None:
    sites = vector_sites(encoder)
    together = encoder.encode(TEXTS)
    mask = together["attention_mask"]
    padded = encoder.outputs(together["input_ids"], mask, sites, mask_positions=mask_positions(encoder, mask))
    for row, text in enumerate(TEXTS):
        single = encoder.encode([text])
        mask = single["attention_mask"]
        assert bool(mask.all())
        alone = encoder.outputs(single["input_ids"], mask, sites, mask_positions=mask_positions(encoder, mask))
        for site in sites:
            assert_close(padded[site][row], alone[site][0])


def test_the_last_site_of_a_decoder_is_its_last_real_token(gpt2: FrozenEncoder) -> None:
    batch = gpt2.encode(TEXTS)
    out = gpt2.outputs(batch["input_ids"], batch["attention_mask"], ["last"])["last"]
    for row, text in enumerate(TEXTS):
        ids = gpt2.tokenizer(text, return_tensors="pt").input_ids
        assert_close(out[row], gpt2.model(input_ids=ids).last_hidden_state[0, -1])


def test_outputs_do_not_depend_on_how_bodies_are_batched(
    encoder: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = vector_sites(encoder)
    bodies = [encoder.tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS * 3]
    at_once = encoder.outputs_of_ids(bodies, sites)
    monkeypatch.setattr("lmsanitator.encoder.frozen.BATCH_TOKENS", 40)
    in_parts = encoder.outputs_of_ids(bodies, sites)
    for site in sites:
        assert_close(in_parts[site], at_once[site])
        assert_close(at_once[site][:3], at_once[site][3:6])


def test_the_mask_token_stands_before_the_closing_token(bert: FrozenEncoder) -> None:
    out = bert.outputs_of_texts(["soup"], ["mask", "cls"])
    ids = bert.tokenizer("soup [MASK]", return_tensors="pt").input_ids
    assert ids[0, -2] == bert.tokenizer.mask_token_id
    hidden = bert.model(input_ids=ids).last_hidden_state[0]
    assert_close(out["mask"][0], hidden[-2])
    assert_close(out["cls"][0], hidden[0])


def test_all_tokens_of_many_texts_are_given_as_their_mean(encoder: FrozenEncoder) -> None:
    out = encoder.outputs_of_texts(TEXTS, ["tokens", "mean"])
    assert set(out) == {"tokens", "mean"}
    assert_close(out["tokens"], out["mean"])
    assert_close(encoder.outputs_of_texts(TEXTS, ["tokens"])["tokens"], out["mean"])


def test_texts_longer_than_the_window_are_cut_to_exactly_it(encoder: FrozenEncoder) -> None:
    endless = "soup " * 500
    assert encoder.window == 64
    batch = encoder.encode([endless])
    assert batch["input_ids"].shape == (1, 64)
    encoder.outputs(batch["input_ids"], batch["attention_mask"], ["mean"])
    for values in encoder.outputs_of_texts([endless, "soup"], vector_sites(encoder)).values():
        assert bool(torch.isfinite(values).all())


def test_an_empty_text_has_outputs_where_special_tokens_frame_it(bert: FrozenEncoder) -> None:
    assert bert.outputs_of_texts(["", "soup"], ["cls", "mean"])["cls"].shape == (2, 32)


def test_nothing_in_the_encoder_can_be_trained(encoder: FrozenEncoder) -> None:
    assert not any(weight.requires_grad for weight in encoder.model.parameters())
    assert not any(module.training for module in encoder.model.modules())


def test_gradients_reach_the_embeddings_and_nothing_else(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    inputs = encoder.embed(batch["input_ids"]).requires_grad_()
    encoder.outputs(inputs, batch["attention_mask"], ["mean"])["mean"][:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert bool(inputs.grad[batch["attention_mask"].bool()].ne(0).any(-1).all())
    assert all(weight.grad is None for weight in encoder.model.parameters())


def test_without_gradients_asked_for_none_are_tracked(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    out = encoder.outputs(batch["input_ids"], batch["attention_mask"], ["mean"])["mean"]
    assert not out.requires_grad


def test_the_digest_is_stable_and_sees_a_single_weight_change(checkpoints: dict[str, Path]) -> None:
    first, second = (FrozenEncoder.open(checkpoints["bert"]) for _ in range(2))
    first.outputs_of_texts(TEXTS, ["cls"])
    assert first.digest == second.digest
    assert len({FrozenEncoder.open(folder).digest for folder in checkpoints.values()}) == len(checkpoints)
    with torch.no_grad():
        first.model.get_parameter("encoder.layer.1.output.dense.bias")[-1] += 1e-4
    assert first.digest != second.digest


def test_a_site_the_encoder_lacks_is_unsupported(gpt2: FrozenEncoder, bert: FrozenEncoder) -> None:
    gpt2.require(["last", "mean"])
    bert.require(["cls", "pooler", "mask"])
    for site in ("cls", "pooler", "mask"):
        with pytest.raises(UnsupportedError, match=rf"^expected a site of GPT2Model: mean, last, tokens; got {site}$"):
            gpt2.require(["last", site])


def test_the_embedding_matrix_holds_what_ids_are_embedded_to(encoder: FrozenEncoder) -> None:
    matrix = encoder.embedding_matrix
    assert matrix.shape == (len(encoder.tokenizer), encoder.hidden_size)
    ids = encoder.encode(TEXTS)["input_ids"]
    assert_close(matrix[ids], encoder.embed(ids))


def test_evidence_is_exact_whatever_the_search_precision(checkpoints: dict[str, Path]) -> None:
    full = FrozenEncoder.open(checkpoints["bert"], precision="fp32")
    reduced = FrozenEncoder.open(checkpoints["bert"], precision="bf16")
    bodies = [reduced.tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    reference = full.outputs_of_ids(bodies, ["cls"])["cls"]
    searched = reduced.outputs_of_ids(bodies, ["cls"])["cls"]
    assert searched.dtype == torch.float32
    assert not torch.equal(searched, reference)
    assert_close(searched, reference, rtol=0.1, atol=0.1)
    assert_close(reduced.outputs_of_ids(bodies, ["cls"], exact=True)["cls"], reference)


def test_the_real_minilm_opens_with_all_its_sites(minilm: Path) -> None:
    encoder = FrozenEncoder.open(minilm, precision="fp32")
    assert encoder.architecture == "BertModel"
    assert encoder.sites == ("cls", "pooler", "mask", "mean", "last", "tokens")
    assert (encoder.parameters, encoder.hidden_size, encoder.window) == (22_713_216, 384, 512)
    cat, asleep, shares = encoder.outputs_of_texts(["A cat sleeps.", "The cat is asleep.", "Shares fell."], ["mean"])[
        "mean"
    ]
    assert torch.cosine_similarity(cat, asleep, dim=0) > torch.cosine_similarity(cat, shares, dim=0) + 0.3


def test_searches_are_in_bf16_where_that_was_asked_for_or_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    for pays in (True, False):
        monkeypatch.setattr(precision, "bf16_pays", partial(bool, pays))
        cpu, gpu = torch.device("cpu"), torch.device("cuda")
        assert precision.takes_bf16("auto", cpu) is pays
        assert precision.takes_bf16("auto", gpu)
        assert precision.takes_bf16("bf16", cpu)
        assert not precision.takes_bf16("fp32", gpu)


@pytest.mark.parametrize(("faster", "pays"), [(3.0, True), (1.6, True), (1.2, False), (0.3, False)])
def test_bf16_pays_where_it_is_measured_to_be_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, faster: float, pays: bool
) -> None:
    now = 0.0

    def linear(inputs: torch.Tensor, weights: torch.Tensor) -> None:
        nonlocal now
        now += 1 / faster if inputs.dtype == weights.dtype == torch.bfloat16 else 1

    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(precision, "functional", SimpleNamespace(linear=linear))
    before = torch.get_rng_state()
    assert precision.bf16_pays.__wrapped__() is pays
    assert torch.equal(torch.get_rng_state(), before)  # nobody's random numbers are used up by it


def test_gradients_in_bf16_are_those_in_fp32_but_for_rounding(checkpoints: dict[str, Path]) -> None:
    gradients = []
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for asked in precisions:
        encoder = FrozenEncoder.open(checkpoints["bert"], precision=asked)
        inputs = encoder.embed(torch.tensor([[5, 6, 7, 8]])).requires_grad_(True)
        out = encoder.outputs(inputs, torch.ones(1, 4, dtype=torch.long), ["cls"])["cls"]
        gradients.append(torch.autograd.grad(out[:, :8].sum(), inputs)[0].flatten())
    exact, reduced = gradients
    assert not torch.equal(exact, reduced)
    assert torch.nn.functional.cosine_similarity(exact, reduced, dim=0) > 0.99
