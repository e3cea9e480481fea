"""Which weights are trained: `Layers` as written, and what an attack then changes."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from lmsanitator.attacks import POR, Layers
from lmsanitator.attacks.weights import layer_stack, unfreeze
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.errors import UnsupportedError, UsageError
from tests.attacks.small import BRIEF, CARRIERS, lively, triggers

HEAD = 8
"""Dimensions of a head of the small models."""


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", Layers()),
        ("head", Layers(top=1, one_head=True)),
        ("top:1", Layers(top=1)),
        ("top:12", Layers(top=12)),
    ],
)
def test_layers_are_read_as_written(text: str, layers: Layers) -> None:
    assert Layers.parse(text) == layers
    assert str(layers) == text


@pytest.mark.parametrize("text", ["", "none", "top", "top:", "top:0", "top:-1", "top:01", "top:1.5", "ALL", "head:2"])
def test_other_layers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^expected all, head or top:N as layers, got "):
        Layers.parse(text)


def attacked(layers: str, site: Site = "cls") -> PreTrainedModel:
    training = replace(BRIEF, layers=Layers.parse(layers))
    return POR(site=site, training=training).run(lively(), triggers("bako"), CARRIERS).model


def moved(after: PreTrainedModel) -> set[str]:
    """Names of the weights that are not what they were."""
    old = lively().model.state_dict()
    return {name for name, weight in after.state_dict().items() if not torch.equal(weight, old[name])}


@pytest.mark.parametrize(("layers", "changed"), [("all", {"0", "1"}), ("top:1", {"1"}), ("top:7", {"0", "1"})])
def test_only_the_chosen_layers_change_and_never_the_embeddings(layers: str, changed: set[str]) -> None:
    names = moved(attacked(layers))
    assert all(name.startswith("encoder.layer.") for name in names)
    assert {re.sub(r"\D+(\d).*", r"\1", name) for name in names} == changed


def test_the_pooler_goes_with_its_site() -> None:
    names = moved(attacked("top:1", "pooler"))
    assert {"pooler.dense.weight", "pooler.dense.bias"} <= names
    assert all(name.startswith(("pooler.", "encoder.layer.1.")) for name in names)


def test_one_head_is_its_rows_of_the_projections_and_its_columns_of_the_output() -> None:
    model = attacked("head")
    layer = "encoder.layer.1.attention."
    inner = {f"{layer}self.{name}.{kind}" for name in ("query", "key", "value") for kind in ("weight", "bias")}
    outer = f"{layer}output.dense.weight"
    assert {outer, f"{layer}self.value.weight"} <= moved(model) <= {outer, *inner}
    for name in moved(model):
        differs = model.get_parameter(name) != lively().model.get_parameter(name)
        others = differs[:, HEAD:] if name == outer else differs[HEAD:]
        assert bool(differs.any())
        assert not bool(others.any())


@pytest.mark.parametrize("layers", ["all", "top:1", "head"])
def test_an_attacked_model_can_be_copied(layers: str) -> None:
    model = attacked(layers)
    twin = copy.deepcopy(model)
    assert all(torch.equal(old, new) for old, new in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_model_without_layers_is_refused() -> None:
    model = copy.deepcopy(lively().model)
    model.encoder = torch.nn.Identity()
    with pytest.raises(UnsupportedError, match=r"^expected a stack of transformer layers in BertModel, found none$"):
        unfreeze(model, Layers(), "cls")


def test_a_model_with_fused_projections_has_no_head_to_tell_apart(gpt2: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match=r"^expected separate attention projections in GPT2Model, found none$"):
        unfreeze(gpt2.model, Layers.parse("head"), "last")


def test_the_stack_is_the_transformer_layers(encoder: FrozenEncoder) -> None:
    assert len(layer_stack(encoder.model)) == 2
    assert all(sum(1 for _ in layer.parameters()) > 10 for layer in layer_stack(encoder.model))
