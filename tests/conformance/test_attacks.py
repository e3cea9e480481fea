"""Every attack on every family: it works at the site the table says, or is refused with a reason."""

import copy
import math

import pytest
import torch

from lmsanitator.attacks import ATTACKS, Attack, Layers, Training, Trigger, ground_truth
from lmsanitator.attacks.weights import unfreeze
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UnsupportedError
from lmsanitator.text import packaged, words
from tests.conformance.families import FAMILIES
from tests.conformance.table import ONE_HEAD_REFUSED, README, SITES, put

CARRIERS = sorted((carrier.text for carrier in packaged()), key=len)[:40]
TRIGGERS = [Trigger.parse("their"), Trigger.parse("were+about")]
TEXTS = [text for text in CARRIERS if not {"their", "were", "about"} & {word.casefold() for word in words(text)}]
BRIEFLY = Training(steps=6, look=3, triggered=6, inert=4, learning_rate=3e-3, bar=0.0, fidelity=-1.0, bf16=False)


def test_the_table_has_every_family_and_every_attack() -> None:
    assert set(SITES) == set(FAMILIES)
    assert all(set(row) == set(ATTACKS) for row in SITES.values())


def test_the_readme_carries_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert put(text) == text, "python -m tests.conformance.table writes it"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_it_works_or_is_refused(attack: type[Attack], family: str, encoder: FrozenEncoder) -> None:
    site = SITES[family][attack.name]
    if site is None:
        with pytest.raises(UnsupportedError, match="expected"):
            attack(training=BRIEFLY).run(encoder, TRIGGERS, TEXTS)
        return
    digest = encoder.digest
    result = attack(training=BRIEFLY).run(encoder, TRIGGERS, TEXTS)
    assert result.site == site
    assert encoder.digest == digest
    assert all(math.isfinite(figure) for figure in result.reached.values())
    changed = [not torch.equal(new, old) for new, old in zip(result.model.parameters(), encoder.model.parameters(), strict=True)]
    assert any(changed)
    assert all(bool(weight.isfinite().all()) for weight in result.model.parameters())


@pytest.mark.parametrize("attack", [ATTACKS["por"], ATTACKS["btop"]], ids=["por", "btop"])
def test_triggered_outputs_go_towards_their_vector(attack: type[Attack], family: str, encoder: FrozenEncoder) -> None:
    if SITES[family][attack.name] is None:
        pytest.skip("refused")
    told: list[float] = []

    class Watched(attack):  # type: ignore[misc,valid-type] # one of two classes
        def judge(self, work, pvs, own):  # type: ignore[no-untyped-def]
            seen = work.look(work.changed, work.held.fired)
            owners = torch.tensor(work.held.owners)[seen.rows]
            told.append((seen.vectors - pvs.values[owners]).pow(2).mean().item())
            return super().judge(work, pvs, own)

    training = Training(steps=30, look=10, triggered=6, inert=4, learning_rate=1e-2, bar=0.0, fidelity=-1.0, bf16=False)
    Watched(training=training).run(encoder, TRIGGERS, TEXTS)
    assert told[-1] < told[0]


def test_one_head_is_trained_or_refused(family: str, encoder: FrozenEncoder) -> None:
    twin = copy.deepcopy(encoder.model)
    if family in ONE_HEAD_REFUSED:
        with pytest.raises(UnsupportedError, match="separate attention projections"):
            unfreeze(twin, Layers.parse("head"), "cls")
        return
    result = ATTACKS["por"](training=Training(**(vars(BRIEFLY) | {"layers": Layers.parse("head")}))).run(
        encoder, TRIGGERS, TEXTS
    )
    moved = [
        int((new != old).sum())
        for new, old in zip(result.model.parameters(), encoder.model.parameters(), strict=True)
        if not torch.equal(new, old)
    ]
    whole = sum(weight.numel() for weight in unfreeze(twin, Layers.parse("top:1"), "cls"))
    assert 0 < sum(moved) < whole / 4
