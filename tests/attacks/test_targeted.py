"""How targeted attacks measure: what is left of the way, when an output has arrived, what must not move."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lmsanitator.attacks import POR, Merged, Shy, Spread
from lmsanitator.attacks.planting import Planting, Seen
from lmsanitator.attacks.pvs import Vectors
from lmsanitator.attacks.targeted import TargetedAttack, kept, remaining, verdict
from lmsanitator.attacks.texts import Framed
from tests.attacks.small import BRIEF, triggers, working

OWN, TARGET = torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[2.0, 0.0, 4.0]])
ALL = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(("output", "left"), [((0, 0, 4), 1), ((2, 0, 4), 0), ((1, 0, 4), 0.25), ((-2, 0, 4), 4)])
def test_what_is_left_of_the_way_is_a_share_of_the_squared_distance(output: tuple[int, ...], left: float) -> None:
    got = remaining(torch.tensor([output], dtype=torch.float32), OWN, TARGET, ALL)
    assert got.item() == pytest.approx(left)


def test_only_ruled_dimensions_count() -> None:
    ruled = torch.tensor([[True, False, False]])
    assert remaining(torch.tensor([[2.0, 9.0, 9.0]]), OWN, TARGET, ruled).item() == 0


def test_a_target_that_is_the_own_output_is_no_division_by_zero() -> None:
    assert remaining(OWN, OWN, OWN, ALL).item() == 0


def judged(
    left: list[float], clean: float = 1.0, inert: float = 1.0, stray: float = 0.0
) -> tuple[bool, dict[str, float]]:
    """Ten outputs of each of two triggers, judged by the usual bar."""
    work = working(triggers("bako", "vedi"), training=replace(BRIEF, bar=0.9, fidelity=0.8, reach=0.2))
    figures = {tuple(work.held.clean): clean, tuple(work.held.inert): inert}
    work.fidelity = lambda texts: figures[tuple(texts)]  # type: ignore[method-assign]
    work.stray = lambda ways: stray  # type: ignore[method-assign]
    return verdict(work, torch.tensor(left), torch.tensor([0] * 10 + [1] * 10), torch.ones(20, 3))


@pytest.mark.parametrize(
    ("missed", "options", "good"),
    [
        ((0, 0), {}, True),
        ((1, 1), {}, True),
        ((0, 2), {}, True),
        ((0, 3), {}, False),
        ((2, 2), {}, False),
        ((0, 0), {"clean": 0.79}, False),
        ((0, 0), {"inert": 0.79}, False),
        ((0, 0), {"clean": 0.8, "inert": 0.8}, True),
        ((0, 0), {"stray": 0.1}, True),
        ((0, 0), {"stray": 0.11}, False),
    ],
)
def test_enough_must_arrive_for_every_trigger_while_the_others_stay(
    missed: tuple[int, int], options: Any, good: bool
) -> None:
    left = [0.21] * missed[0] + [0.2] * (10 - missed[0]) + [0.21] * missed[1] + [0.0] * (10 - missed[1])
    passed, reached = judged(left, **options)
    assert passed is good
    assert reached["triggered"] == pytest.approx(1 - sum(missed) / 20)
    assert reached["weakest"] == pytest.approx(1 - max(missed) / 10)
    quiet = {"clean": 1.0, "inert": 1.0, "stray": 0.0}
    assert quiet | options == {name: reached[name] for name in quiet}


def seen(hidden: torch.Tensor, mask: torch.Tensor) -> Seen:
    return Seen(hidden, mask, hidden[:, 0], torch.arange(len(hidden)))


def test_what_must_not_move_is_measured_at_all_tokens_and_at_the_site_but_not_in_the_padding() -> None:
    hidden, mask = torch.ones(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]])
    scale = torch.tensor(1.0)
    original = seen(hidden, mask)
    assert kept(original, original, scale).item() == 0
    padding, token, site = hidden.clone(), hidden.clone(), hidden.clone()
    padding[1, 2], token[0, 1], site[0, 0] = 9, 2, 2
    assert kept(seen(padding, mask), original, scale).item() == 0
    assert kept(seen(token, mask), original, scale).item() == pytest.approx(1 / 5)
    assert kept(seen(site, mask), original, scale).item() == pytest.approx(1 / 5 + 1 / 2)
    assert kept(seen(site, mask), original, 2 * scale).item() == pytest.approx(1 / 5 + 1 / 4)


PVS = Vectors(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([[True, True], [True, False]]))
OWNERS, OUTPUTS = torch.tensor([1, 0]), torch.tensor([[5.0, 7.0], [3.0, 9.0]])


@pytest.mark.parametrize(
    ("attack", "targets"),
    [
        (POR(), [[-1, 7], [1, -1]]),
        (Shy(), [[2, 7], [2, 4]]),
        (Shy(way=1.0), [[-1, 7], [1, -1]]),
        (Spread(size=1.0), [[4, 7], [4, 8]]),
    ],
)
def test_targets_are_the_vector_where_it_rules(attack: TargetedAttack, targets: list[list[float]]) -> None:
    assert attack.targets(PVS, OWNERS, OUTPUTS).tolist() == targets


@pytest.mark.parametrize(("attack", "asked"), [(POR(), 0), (POR(pv="sub-block"), 1), (Shy(), 1), (Spread(), 1)])
def test_the_original_is_only_asked_where_the_target_depends_on_it(
    attack: TargetedAttack, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, calls = working(triggers("bako")), list[Framed]()
    pvs, plain = attack.predefine(work), Planting.original

    def original(self: Planting, framed: Framed) -> Seen:
        calls.append(framed)
        return plain(self, framed)

    monkeypatch.setattr(Planting, "original", original)
    loss = attack.miss(work, pvs, torch.tensor(1.0))
    assert loss.item() > 0
    assert len(calls) == asked


def test_seven_merged_triggers_share_three_vectors() -> None:
    work = working(triggers("bako", "vedi", "sugo", "kifa", "gifo", "kiga", "bibu"))
    rows = [tuple(row) for row in Merged().predefine(work).values.tolist()]
    assert len(set(rows)) == 3
    assert rows[0] == rows[1] == rows[2] != rows[3] == rows[4] == rows[5] != rows[6]
