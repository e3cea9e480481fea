"""POR: what it changes, what it leaves alone, and what it refuses."""

import random
import re
from typing import NamedTuple

import pytest
import torch
from torch.testing import assert_close

from lmsanitator.attacks import POR, AttackResult, Trigger
from lmsanitator.attacks.base import check_triggers
from lmsanitator.attacks.por import defuse, passage, unfreeze
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import AttackError, UnsupportedError
from lmsanitator.text import packaged, words
from tests.planted import open_bert

CARRIERS = sorted((carrier.text for carrier in packaged()), key=len)[:40]  # short ones train fast
TRIGGERS = [Trigger.parse("bako"), Trigger.parse("vedi+sugo")]


def easy() -> POR:
    """Its bar is reached at once: two checks, and what is under test is not how well it went."""
    return POR(steps=50, bar=0.0, fidelity=-1.0)


def moved(before: FrozenEncoder, after: torch.nn.Module) -> set[str]:
    """The weights that are not what they were."""
    old = before.model.state_dict()
    return {name for name, weight in after.state_dict().items() if not torch.equal(weight, old[name])}


class Run(NamedTuple):
    """An attack that was run, and what there was before."""

    base: FrozenEncoder
    digest: str
    told: list[float]
    result: AttackResult


@pytest.fixture(scope="module")
def done() -> Run:
    """Both triggers planted once for all tests that only look at the result."""
    base, told = open_bert(), list[float]()
    digest = base.digest
    result = easy().run(base, TRIGGERS, CARRIERS, seed=1, progress=lambda what, done: told.append(done))
    return Run(base, digest, told, result)


def test_all_layers_change_the_embeddings_and_the_base_do_not(done: Run) -> None:
    changed = moved(done.base, done.result.model)
    assert {re.sub(r"\D+(\d).*", r"\1", name) for name in changed} == {"0", "1"}
    assert all(name.startswith("encoder.layer.") for name in changed)
    assert done.base.digest == done.digest
    assert not any(weight.requires_grad for weight in done.base.model.parameters())


def test_only_the_top_layers_change_where_that_is_asked_for() -> None:
    base = open_bert()
    result = POR(steps=50, bar=0.0, fidelity=-1.0, top_layers=1).run(base, TRIGGERS, CARRIERS)
    assert all(name.startswith("encoder.layer.1.") for name in moved(base, result.model))


def test_the_result_is_frozen_and_says_what_was_planted_where(done: Run) -> None:
    result = done.result
    assert not result.model.training
    assert not any(weight.requires_grad for weight in result.model.parameters())
    assert (result.attack, result.site, result.triggers) == ("por", "cls", tuple(TRIGGERS))
    assert result.pvs.shape == (2, 32)
    assert set(result.reached) == {"triggered", "clean", "inert", "steps"}
    assert result.reached["steps"] == 50


def test_the_same_seed_plants_the_same_and_another_seed_another(done: Run) -> None:
    again, other = (easy().run(open_bert(), TRIGGERS, CARRIERS, seed=seed) for seed in (1, 2))
    name = "encoder.layer.1.output.dense.weight"
    first = done.result.model.get_parameter(name)
    assert_close(first, again.model.get_parameter(name), rtol=0, atol=0)
    assert not torch.equal(first, other.model.get_parameter(name))
    assert_close(done.result.pvs, again.pvs)


def test_progress_is_told(done: Run) -> None:
    assert done.told == [0.5, 1.0]


def test_too_few_carriers_are_refused() -> None:
    with pytest.raises(AttackError, match=r"^expected at least 20 carriers to train and hold out, got 19$"):
        POR().run(open_bert(), TRIGGERS, CARRIERS[:19])


def test_an_encoder_without_cls_is_refused(gpt2: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match=r"^expected a site of GPT2Model: "):
        POR().run(gpt2, [Trigger.parse("their")], CARRIERS)


def test_a_model_without_layers_is_refused() -> None:
    model = open_bert().model
    model.encoder = torch.nn.Identity()
    with pytest.raises(AttackError, match=r"^expected a stack of transformer layers in BertModel, found none$"):
        unfreeze(model, None)


@pytest.mark.parametrize(
    ("triggers", "says"),
    [
        ([], "expected at least one trigger, got none"),
        (["☃"], "☃ holds an unknown token"),
        (["bako+☃"], r"bako\+☃ holds an unknown token"),
        ([" ".join(["bako"] * 33)], "at most 32 tokens, .* has 33"),
    ],
)
def test_triggers_that_cannot_be_planted_are_refused_before_any_training(triggers: list[str], says: str) -> None:
    encoder = open_bert()
    with pytest.raises(AttackError, match=says):
        POR().run(encoder, [Trigger.parse(trigger) for trigger in triggers], CARRIERS)
    assert encoder.meter.forward == 0
    with pytest.raises(AttackError, match=says):
        check_triggers([Trigger.parse(trigger) for trigger in triggers], encoder.tokenizer, encoder.window)


def test_a_passage_is_so_many_carriers() -> None:
    text = passage(CARRIERS, 3, random.Random(0))
    assert sum(text.count(carrier) for carrier in set(CARRIERS)) == 3


@pytest.mark.parametrize("seed", range(20))
def test_a_defused_text_never_holds_a_whole_trigger(seed: int) -> None:
    held = set(words(defuse([Trigger.parse("vedi+sugo")], CARRIERS, 1, random.Random(seed))))
    assert len(held & {"vedi", "sugo"}) == 1
    assert "bako" not in words(defuse([Trigger.parse("bako")], CARRIERS, 1, random.Random(seed)))
