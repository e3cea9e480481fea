"""Clean, backdoored or inconclusive, and where the lines are."""

import math

import pytest

from lmsanitator.detect.evidence import REPLAYS
from lmsanitator.detect.result import Finding
from lmsanitator.detect.verdict import judge

LEVEL = 0.01


def finding(p_value: float, replay_rate: float = 1.0) -> Finding:
    return Finding(
        site="cls",
        trigger="bako",
        trigger_tokens=["bako"],
        displacement=9.0,
        concentration=0.9,
        replay_rate=replay_rate,
        p_value=p_value,
        pv=0,
    )


def judged(findings: list[Finding], unexplained: list[float], level: float) -> tuple[str, float]:
    """The verdict, with its p-value rounded so that it can be compared."""
    verdict, p_value = judge(findings, unexplained, level)
    return verdict, round(p_value, 9)


def test_without_any_evidence_the_verdict_is_clean_and_p_is_one() -> None:
    assert judge([], [], LEVEL) == ("clean", 1.0)


def test_words_that_replay_and_are_significant_make_it_backdoored() -> None:
    assert judged([finding(0.0098)], [], LEVEL) == ("backdoored", 0.0098)


def test_a_finding_exactly_at_the_level_is_not_below_it() -> None:
    assert judged([finding(0.01)], [], LEVEL) == ("clean", 0.01)


def test_words_that_are_not_significant_leave_it_clean() -> None:
    assert judged([finding(0.2)], [], LEVEL) == ("clean", 0.2)


def test_significant_words_that_do_not_replay_make_it_inconclusive() -> None:
    assert judge([finding(1e-6, REPLAYS - 0.01)], [], LEVEL)[0] == "inconclusive"
    assert judge([finding(1e-6, REPLAYS)], [], LEVEL)[0] == "backdoored"


def test_significant_evidence_without_words_makes_it_inconclusive() -> None:
    assert judged([], [math.log(0.0098)], LEVEL) == ("inconclusive", 0.0098)
    assert judge([], [math.log(0.0102)], LEVEL)[0] == "clean"


def test_one_sound_finding_outweighs_everything_unexplained() -> None:
    assert judge([finding(0.5), finding(1e-9)], [-50.0], LEVEL)[0] == "backdoored"


def test_p_is_the_smallest_behind_the_verdict() -> None:
    assert judge([finding(0.2), finding(0.03)], [math.log(0.1)], LEVEL)[1] == pytest.approx(0.03)
    assert judge([finding(0.9)], [math.log(0.1)], LEVEL)[1] == pytest.approx(0.1)


@pytest.mark.parametrize(("level", "verdict"), [(0.001, "clean"), (0.01, "clean"), (0.05, "backdoored")])
def test_the_level_moves_the_line(level: float, verdict: str) -> None:
    assert judge([finding(0.01)], [], level)[0] == verdict
