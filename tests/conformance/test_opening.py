"""Every family's checkpoints open with the weights that were saved, whatever head they were saved with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from lmsanitator.encoder import FrozenEncoder, open_checkpoint
from lmsanitator.errors import CheckpointError
from tests.conformance.families import FAMILIES

LANGUAGE_MODELS: dict[str, Any] = dict.fromkeys(FAMILIES, AutoModelForMaskedLM) | dict.fromkeys(
    ("XLNet", "GPT-2", "Llama", "Qwen2"), AutoModelForCausalLM
)


def with_head(family: str) -> tuple[Any, Any]:
    """The family's model for the task it was pretrained on, and its tokenizer."""
    model, tokenizer = FAMILIES[family]()
    torch.manual_seed(0)
    return LANGUAGE_MODELS[family].from_config(model.config), tokenizer


def test_opening_loads_every_weight_and_the_same_tokens(family: str, folder: Path) -> None:
    made, tokenizer = FAMILIES[family]()
    opened = open_checkpoint(folder)
    assert opened.untrained == frozenset()
    assert type(opened.model) is type(made)
    assert_close(opened.model.state_dict(), made.state_dict(), rtol=0, atol=0)
    for text in ("Soup!", "My neighbour's dog barks at every single bicycle that passes the gate."):
        assert opened.tokenizer(text).input_ids == tokenizer(text).input_ids


def test_models_are_the_same_at_every_call(family: str) -> None:
    first, again = (FAMILIES[family]()[0].state_dict() for _ in range(2))
    assert_close(first, again, rtol=0, atol=0)


def test_a_language_model_opens_as_its_encoder(family: str, tmp_path: Path) -> None:
    """Most checkpoints on the hub are saved with their head, and without a pooler."""
    model, tokenizer = with_head(family)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    opened = FrozenEncoder.open(tmp_path)
    weights = opened.model.state_dict()
    assert_close({name: weights[name] for name in model.base_model.state_dict()}, model.base_model.state_dict())
    assert "pooler" not in opened.sites
    assert opened.digest == FrozenEncoder.open(tmp_path).digest, "a pooler made up at random is no part of it"


def test_a_checkpoint_that_lacks_a_layer_is_refused(family: str, tmp_path: Path) -> None:
    model, tokenizer = FAMILIES[family]()
    tokenizer.save_pretrained(tmp_path)
    lost = next(name for name in model.state_dict() if "layer" in name or name.startswith("h."))
    weights = {name: weight for name, weight in model.state_dict().items() if name != lost}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(CheckpointError, match=r"^expected all weights of .*, 1 are missing, first "):
        open_checkpoint(tmp_path)


def test_the_digest_outlives_saving_and_sees_one_changed_value(encoder: FrozenEncoder, tmp_path: Path) -> None:
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    again = FrozenEncoder.open(tmp_path)
    assert again.digest == encoder.digest
    with torch.no_grad():
        list(again.model.parameters())[-1].flatten()[0] += 1e-3
    assert again.digest != encoder.digest
