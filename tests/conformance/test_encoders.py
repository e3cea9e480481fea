"""Every family: its sites, outputs, gradients, window, embeddings and layers are what the rest relies on."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.encoder import FrozenEncoder, Site
from tests.conformance.families import FAMILIES
from tests.conftest import WINDOW

SHORT, LONG = "Soup!", "My neighbour's dog barks at every single bicycle that passes the gate."
TEXTS = ["The train was late again.", SHORT, LONG]
POOLED: tuple[Site, ...] = ("cls", "pooler", "mask", "mean", "last", "tokens")
UNPOOLED: tuple[Site, ...] = ("cls", "mask", "mean", "last", "tokens")
DECODER: tuple[Site, ...] = ("mean", "last", "tokens")
SITES: dict[str, tuple[Site, ...]] = {
    "BERT": POOLED,
    "RoBERTa": POOLED,
    "DistilBERT": UNPOOLED,
    "ALBERT": POOLED,
    "ELECTRA": UNPOOLED,
    "DeBERTa-v2": UNPOOLED,
    "MPNet": POOLED,
    "XLNet": ("mask", "mean", "last", "tokens"),  # <cls> stands at the end: the last token is the one to watch
    "ERNIE": POOLED,
    "ModernBERT": UNPOOLED,
    "GPT-2": DECODER,
    "Llama": DECODER,
    "Qwen2": DECODER,
}
WINDOWS = dict.fromkeys(FAMILIES, WINDOW) | {"XLNet": 512}  # which has no positions to run out of
FRAMES = {
    "RoBERTa": (["<s>"], ["</s>"]),
    "MPNet": (["<s>"], ["</s>"]),
    "XLNet": ([], ["<sep>", "<cls>"]),
    "GPT-2": ([], []),
    "Llama": (["<s>"], []),
    "Qwen2": ([], []),
}
POSITION_TABLES = ("BERT", "RoBERTa", "DistilBERT", "ALBERT", "ELECTRA", "MPNet", "ERNIE", "GPT-2")
DECODERS = ("GPT-2", "Llama", "Qwen2")
SHARED_LAYERS = {"ALBERT": ("encoder.albert_layer_groups", 1)}
STACKS = {
    "DistilBERT": ("transformer.layer", 2),
    "XLNet": ("layer", 2),
    "ModernBERT": ("layers", 4),
    "GPT-2": ("h", 2),
    "Llama": ("layers", 2),
    "Qwen2": ("layers", 2),
} | SHARED_LAYERS


def bodies_of(encoder: FrozenEncoder, texts: list[str]) -> list[list[int]]:
    bodies: list[list[int]] = encoder.tokenizer(texts, add_special_tokens=False).input_ids
    return bodies


def vector_sites(encoder: FrozenEncoder) -> list[Site]:
    return [site for site in encoder.sites if site != "tokens"]


def test_sites_are_those_the_family_has(family: str, encoder: FrozenEncoder) -> None:
    assert encoder.sites == SITES[family]


def test_the_frame_is_the_family_s(family: str, encoder: FrozenEncoder) -> None:
    before, after = map(encoder.tokenizer.convert_ids_to_tokens, encoder.frame)
    assert (before, after) == FRAMES.get(family, (["[CLS]"], ["[SEP]"]))


def test_a_text_alone_and_in_a_padded_batch_has_the_same_outputs(encoder: FrozenEncoder) -> None:
    sites = vector_sites(encoder)
    bodies = bodies_of(encoder, TEXTS)
    together = encoder.outputs_of_ids(bodies, sites)
    for row, body in enumerate(bodies):
        alone = encoder.outputs_of_ids([body], sites)
        for site in sites:
            assert_close(together[site][row], alone[site][0], rtol=1e-4, atol=1e-4)


def test_every_token_of_a_padded_batch_has_the_output_it_has_alone(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    mask = batch["attention_mask"]
    assert bool((mask[:, :-1] >= mask[:, 1:]).all()), "padding is on the right"
    together = encoder.outputs(batch["input_ids"], mask, ["tokens"])["tokens"]
    for row, text in enumerate(TEXTS):
        single = encoder.encode([text])
        alone = encoder.outputs(single["input_ids"], single["attention_mask"], ["tokens"])["tokens"][0]
        assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-4)


def test_encoded_texts_and_framed_bodies_are_the_same_tokens(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    by_texts = encoder.outputs(batch["input_ids"], batch["attention_mask"], ["mean", "last"])
    by_bodies = encoder.outputs_of_ids(bodies_of(encoder, TEXTS), ["mean", "last"])
    for site, values in by_texts.items():
        assert_close(values, by_bodies[site], rtol=1e-4, atol=1e-4)


def test_ids_and_their_embeddings_have_the_same_outputs(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    sites = list(encoder.sites)
    last = mask.sum(1) - 1  # any real position will do for the mask site
    by_ids = encoder.outputs(ids, mask, sites, mask_positions=last)
    by_embeddings = encoder.outputs(encoder.embed(ids), mask, sites, mask_positions=last)
    for site in sites:
        real = mask.bool() if site == "tokens" else slice(None)
        assert_close(by_embeddings[site][real], by_ids[site][real], rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_embedding_and_no_weight(encoder: FrozenEncoder) -> None:
    batch = encoder.encode(TEXTS)
    mask = batch["attention_mask"]
    for site in vector_sites(encoder):
        inputs = encoder.embed(batch["input_ids"]).requires_grad_()
        out = encoder.outputs(inputs, mask, [site], mask_positions=mask.sum(1) - 1)[site]
        out[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        assert inputs.grad is not None
        reached = inputs.grad.ne(0).any(-1)
        assert bool(reached[:, 0].all()), f"{site} sees the first token"
        assert site == "mean" or not bool(reached[~mask.bool()].any()), f"{site} sees no padding"
    assert all(weight.grad is None for weight in encoder.model.parameters())


def test_a_text_longer_than_the_window_is_cut_to_it(family: str, encoder: FrozenEncoder) -> None:
    assert encoder.window == WINDOWS[family]
    endless = "soup " * 600
    batch = encoder.encode([endless, SHORT])
    assert batch["input_ids"].shape == (2, encoder.window)
    out = encoder.outputs(batch["input_ids"], batch["attention_mask"], ["tokens"])["tokens"]
    assert bool(torch.isfinite(out).all())
    for values in encoder.outputs_of_texts([endless, SHORT], vector_sites(encoder)).values():
        assert bool(torch.isfinite(values).all())


def test_the_window_is_as_long_as_its_positions_are(family: str, encoder: FrozenEncoder) -> None:
    ids = torch.full((1, encoder.window + 1), encoder.embedding_matrix.shape[0] - 1)
    mask = torch.ones_like(ids)
    if family in POSITION_TABLES:
        with pytest.raises((IndexError, RuntimeError)):
            encoder.outputs(ids, mask, ["mean"])
    else:
        assert bool(torch.isfinite(encoder.outputs(ids, mask, ["mean"])["mean"]).all())


def test_padding_would_be_seen_if_it_were_not_masked(family: str, encoder: FrozenEncoder) -> None:
    """What the tests above rely on: the outputs of a random model do depend on tokens elsewhere."""
    batch = encoder.encode([SHORT, LONG])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    length = int(mask[0].sum())
    masked, seen = (encoder.outputs(ids, seen, ["tokens"])["tokens"][0, :length] for seen in (mask, mask.clip(1)))
    moved = float((masked - seen).abs().max())
    assert moved == 0 if family in DECODERS else moved > 5e-3


def test_searches_in_reduced_precision_follow_the_same_outputs(encoder: FrozenEncoder, folder: Path) -> None:
    reduced = FrozenEncoder.open(folder, precision="bf16")
    batch = encoder.encode(TEXTS)
    inputs = reduced.embed(batch["input_ids"]).requires_grad_()
    out = reduced.outputs(inputs, batch["attention_mask"], ["mean"])["mean"]
    exact = encoder.outputs(inputs.detach(), batch["attention_mask"], ["mean"])["mean"]
    assert_close(out.detach(), exact, rtol=0, atol=0.1)
    out[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert bool(torch.isfinite(inputs.grad).all())


def test_the_embedding_matrix_has_one_row_for_each_entry_of_the_tokenizer(encoder: FrozenEncoder) -> None:
    matrix = encoder.embedding_matrix
    assert len(matrix) == len(encoder.tokenizer) == max(encoder.tokenizer.get_vocab().values()) + 1
    ids = encoder.encode(TEXTS)["input_ids"]
    assert_close(matrix[ids], encoder.embed(ids), rtol=0, atol=0)


def test_the_largest_stack_of_modules_is_the_transformer_layers(family: str, encoder: FrozenEncoder) -> None:
    stacks = {name: stack for name, stack in encoder.model.named_modules() if isinstance(stack, torch.nn.ModuleList)}
    largest = max(stacks, key=lambda name: sum(weight.numel() for weight in stacks[name].parameters()))
    assert (largest, len(stacks[largest])) == STACKS.get(family, ("encoder.layer", 2))
    if family not in SHARED_LAYERS:
        assert len(stacks[largest]) == encoder.model.config.num_hidden_layers
    own = [{weight.data_ptr() for weight in layer.parameters()} for layer in stacks[largest]]
    assert len(set.union(*own)) == sum(map(len, own)), "no layer shares weights with another"
