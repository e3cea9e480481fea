"""Group testing: the fewest items that still do it, in few calls."""

from collections.abc import Callable, Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsanitator.text import shrink


class Calls:
    """Counts how often it is asked, and for how many selections at most."""

    def __init__(self, works: Callable[[Sequence[int]], bool]) -> None:
        self.works = works
        self.count = 0
        self.widest = 0

    def __call__(self, selections: list[list[int]]) -> list[bool]:
        self.count += 1
        self.widest = max(self.widest, len(selections))
        return [self.works(selection) for selection in selections]


def holds(needed: Collection[int]) -> Calls:
    return Calls(lambda selection: set(needed) <= set(selection))


@pytest.mark.parametrize(
    "needed",
    [{0}, {499}, {217}, {0, 1}, {0, 499}, {250, 251}, {498, 499}, {3, 200, 480}, {0, 1, 2}, {497, 498, 499}],
    ids=str,
)
def test_the_needed_items_are_found_among_many_wherever_they_stand(needed: set[int]) -> None:
    assert shrink(range(500), holds(needed), most=4) == sorted(needed)


def test_items_that_work_without_any_of_them_shrink_to_none_at_all() -> None:
    assert shrink(range(20), holds(()), most=2) == []


def test_a_single_needed_item_is_found() -> None:
    assert shrink(["only"], lambda selections: ["only" in selection for selection in selections], most=1) == ["only"]


def test_items_come_back_in_their_order() -> None:
    def works(selections: list[list[str]]) -> list[bool]:
        return [{"b", "x"} <= set(selection) for selection in selections]

    assert shrink(list("zxwvub"), works, most=3) == ["x", "b"]


def test_copies_of_a_needed_item_do_not_matter() -> None:
    copies = [7, 1, 9, 7, 2, 9, 7, 3, 9]
    found = shrink(copies, holds({7, 9}), most=2)
    assert found is not None
    assert sorted(found) == [7, 9]


def test_either_of_two_ways_that_work_is_enough() -> None:
    found = shrink(range(100), Calls(lambda selection: 20 in selection or {50, 70} <= set(selection)), most=2)
    assert found in ([20], [50, 70])


@pytest.mark.parametrize("most", [0, 1, 2])
def test_more_than_most_needed_items_give_none(most: int) -> None:
    assert shrink(range(60), holds({5, 25, 45}), most=most) is None


def test_exactly_most_needed_items_are_found() -> None:
    assert shrink(range(60), holds({5, 25, 45}), most=3) == [5, 25, 45]


@pytest.mark.parametrize(("needed", "calls"), [({217}, 5), ({3, 480}, 8), ({3, 200, 480}, 11)], ids=str)
def test_few_calls_are_made_and_none_is_wider_than_asked(needed: set[int], calls: int) -> None:
    works = holds(needed)
    shrink(range(500), works, most=4, width=16)
    assert works.count <= calls
    assert works.widest <= 16


def test_a_wider_batch_takes_fewer_calls() -> None:
    narrow, wide = holds({300, 700}), holds({300, 700})
    shrink(range(1000), narrow, most=2, width=1)
    shrink(range(1000), wide, most=2, width=64)
    assert wide.count < narrow.count / 2


@given(
    size=st.integers(1, 40),
    ways=st.lists(st.sets(st.integers(0, 39), min_size=1, max_size=5), min_size=1, max_size=4),
    width=st.integers(1, 20),
)
def test_whatever_only_gains_by_items_shrinks_to_what_works_and_has_nothing_to_drop(
    size: int, ways: list[set[int]], width: int
) -> None:
    """Any such predicate is a list of sets, one of which has to be there whole."""
    works = Calls(lambda selection: any(way <= set(selection) for way in ways))
    items = list(range(size))
    if not works.works(items):
        return
    found = shrink(items, works, most=size, width=width)
    assert found is not None
    assert found == sorted(set(found))
    assert works.works(found)
    for dropped in found:
        assert not works.works([item for item in found if item != dropped])
