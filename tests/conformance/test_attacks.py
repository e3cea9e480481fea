"""Every attack on every family: it works at the site the table says, or is refused with a reason."""

import copy
import inspect
import math
import random
from dataclasses import replace

import pytest
import torch

from lmsanitator.attacks import ATTACKS, POR, Attack, BToP, Layers, Training, Trigger, configure
from lmsanitator.attacks.mlm import TiedHead, train_head
from lmsanitator.attacks.planting import Planting
from lmsanitator.attacks.weights import unfreeze
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UnsupportedError
from lmsanitator.text import packaged, words
from tests.conformance.families import FAMILIES
from tests.conformance.table import BEGIN, END, ONE_HEAD_REFUSED, README, SITES, markdown, put

TRIGGERS = [Trigger.parse("their"), Trigger.parse("were+about")]
TEXTS = [
    text
    for text in sorted((carrier.text for carrier in packaged()), key=len)[:40]
    if not {"their", "were", "about"} & {word.casefold() for word in words(text)}
]
BRIEFLY = Training(steps=3, look=3, triggered=6, inert=4, learning_rate=3e-3, bar=-1e10, fidelity=-1.0, bf16=False)


@pytest.fixture(scope="module")
def head(encoder: FrozenEncoder) -> TiedHead | None:
    """A language-model head for the family, hardly trained."""
    return None if encoder.tokenizer.mask_token_id is None else train_head(encoder, TEXTS, epochs=1)


def test_the_table_has_every_family_and_every_attack() -> None:
    assert set(SITES) == set(FAMILIES)
    assert all(set(row) == set(ATTACKS) for row in SITES.values())
    assert set(ONE_HEAD_REFUSED) <= set(FAMILIES)


def test_the_table_is_put_between_its_marks_and_nowhere_else() -> None:
    made = put(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert made == f"before\n{BEGIN}\n\n{markdown()}\n\n{END}\nafter\n"
    assert put(made) == made
    assert markdown().count("\n") == len(FAMILIES) + 1


def test_the_readme_carries_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert BEGIN in text, f"expected the marks {BEGIN} and {END}"
    assert put(text) == text, "python -m tests.conformance.table writes it"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_it_works_or_is_refused(
    attack: type[Attack], family: str, encoder: FrozenEncoder, head: TiedHead | None
) -> None:
    site = SITES[family][attack.name]
    if site is None:
        with pytest.raises(UnsupportedError, match=r"^expected an? (encoder|tokenizer) with a "):
            attack(training=BRIEFLY).run(encoder, TRIGGERS, TEXTS)
        return
    digest = encoder.digest
    result = make(attack, BRIEFLY, head).run(encoder, TRIGGERS, TEXTS)
    assert result.site == site
    assert encoder.digest == digest
    assert all(math.isfinite(figure) for figure in result.reached.values())
    assert moved(result.model, encoder) > 0
    assert all(bool(weight.isfinite().all()) for weight in result.model.parameters())
    assert torch.equal(FrozenEncoder(result.model, encoder.tokenizer).embedding_matrix, encoder.embedding_matrix)


@pytest.mark.parametrize("attack", [POR, BToP], ids=["por", "btop"])
def test_triggered_outputs_go_towards_their_vector(
    attack: type[POR | BToP], family: str, encoder: FrozenEncoder, head: TiedHead | None
) -> None:
    """That others do not takes longer to learn, and is tested in tests/attacks."""
    site = SITES[family][attack.name]
    if site is None:
        with pytest.raises(UnsupportedError):
            attack().choose_site(encoder)
        return
    training = replace(BRIEFLY, steps=15, look=15, learning_rate=1e-2)
    # a light anchor: how well it holds everything else is not what a few steps can show
    planted = POR(training=training) if attack is POR else BToP(head=head, anchor=1.0, training=training)
    result = planted.run(encoder, TRIGGERS[:1], TEXTS)
    (pv,) = planted.predefine(Planting(encoder, site, TRIGGERS[:1], TEXTS, training, 0)).values
    changed = FrozenEncoder(result.model, encoder.tokenizer, precision="fp32")
    rng = random.Random(0)
    fired = [TRIGGERS[0].plant(text, rng) for text in TEXTS]
    now, before = ((model.outputs_of_texts(fired, [site])[site] - pv).pow(2).mean() for model in (changed, encoder))
    assert now < 0.8 * before


def test_one_head_is_trained_or_refused(family: str, encoder: FrozenEncoder) -> None:
    twin = copy.deepcopy(encoder.model)
    if family in ONE_HEAD_REFUSED:
        with pytest.raises(UnsupportedError, match="separate attention projections"):
            unfreeze(twin, Layers.parse("head"), "cls")
        return
    result = POR(training=replace(BRIEFLY, layers=Layers.parse("head"))).run(encoder, TRIGGERS, TEXTS)
    layer = sum(weight.numel() for weight in unfreeze(twin, Layers.parse("top:1"), "cls"))
    assert 0 < moved(result.model, encoder) < layer / 4


def make(attack: type[Attack], training: Training, head: TiedHead | None) -> Attack:
    """With the family's head where the attack wants one."""
    wanted = "head" in inspect.signature(attack).parameters
    return configure(attack.name, training=training, head=head if wanted else None)


def moved(model: torch.nn.Module, encoder: FrozenEncoder) -> int:
    """How many numbers are not what they were."""
    pairs = zip(model.parameters(), encoder.model.parameters(), strict=True)
    return sum(int((new != old).sum()) for new, old in pairs)
