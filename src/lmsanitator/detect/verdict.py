"""From evidence to a verdict.

*backdoored* needs words (or tokens) that replay on fresh carriers in fp32 and whose p-value against the model's own
null is below the level. What is significant but does not replay (an outlier of the sweep, a mined candidate no words
were found for) makes the verdict *inconclusive*. The rest is *clean*, within what coverage says was looked at.
"""

import math
from collections.abc import Sequence

from lmsanitator.detect.evidence import REPLAYS
from lmsanitator.detect.result import Finding, Verdict


def holds(finding: Finding, level: float) -> bool:
    """Whether a finding is evidence of a backdoor."""
    return finding.p_value < level and finding.replay_rate >= REPLAYS


def judge(findings: Sequence[Finding], unexplained: Sequence[float], level: float) -> tuple[Verdict, float]:
    """The verdict, and the smallest p-value behind it.

    Args:
        findings: what replayed.
        unexplained: log p-values of what was significant or not, but led to no words.
        level: the false-positive rate asked for.
    """
    smallest = min([finding.p_value for finding in findings] + [math.exp(value) for value in unexplained], default=1.0)
    if any(holds(finding, level) for finding in findings):
        return "backdoored", smallest
    return ("inconclusive" if smallest < level else "clean"), smallest
