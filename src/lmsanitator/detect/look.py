"""The second look: which of the sweep's outliers stand out even among outliers, in long natural text.

Every model has words that move its output more than others, and tuning adds some. They are the null: the shortlists
hold the most extreme natural words of the whole vocabulary, and a trigger has to stand out among *them*. So having
picked the extremes of 30,000 tokens needs no correction, and nothing is extrapolated from ordinary words.

Text is long on purpose (`make_passages`). What a word does by its meaning fades with the length of the text around it;
what a backdoor does mostly stays.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from lmsanitator.detect.evidence import STATISTICS, Evidence, EvidenceNull, Null, harmless
from lmsanitator.detect.null import independent
from lmsanitator.detect.replay import Replayer
from lmsanitator.encoder import Site
from lmsanitator.errors import UnsupportedError
from lmsanitator.progress import Progress, silent


@dataclass(frozen=True)
class Look:
    """What the second look saw."""

    seen: Mapping[Site, list[Evidence]]
    """All shortlisted words, at each site."""
    nulls: Mapping[Site, Null]


def null_of(site: Site, found: Sequence[Evidence], log_trials: float) -> Null:
    """The null of what stands out at a site: all shortlisted words, as they do there.

    The tail is that of the upper half of those that may be harmless, without its top quarter, which may be triggers'
    neighbours in embedding space. With more of them than that in a model the test loses power, it does not accuse.
    """
    return EvidenceNull.fit(harmless(found), log_trials, mass=0.5, censored=0.25)


def look_again(
    replayer: Replayer,
    shortlists: Mapping[Site, Sequence[tuple[int, ...]]],
    *,
    share: float = 1.0,
    fit: Callable[[Site, Sequence[Evidence], float], Null] = null_of,
    progress: Progress = silent,
) -> Look:
    """Put all shortlisted words into the replayer's passages, and fit the null of each site.

    The sites share the passes, so a word that is on the shortlist of one of them is measured at all. The number of
    trials is that of the words, times that of the sites as far as these do not repeat each other.

    Args:
        shortlists: words as their tokens; most are one.
        share: of the false positives that may be, those that this look may be to blame for.
        fit: makes the null, of a site's evidence and the log of the number of trials (`Null.log_trials`).
    """
    words = sorted({word for short in shortlists.values() for word in short})
    seen: dict[Site, list[Evidence]] = {site: [] for site in shortlists}
    step = max(1, len(words) // 10)
    for start in range(0, len(words), step):
        progress("looking again at outliers", start / len(words))
        for site, found in replayer.measure(words[start : start + step]).items():
            seen[site] += found
    trials = math.log(len(words) * _independent_sites(seen) / share)
    try:
        nulls = {site: fit(site, found, trials) for site, found in seen.items()}
    except ValueError as error:
        raise UnsupportedError(
            f"expected a vocabulary of a few hundred tokens, got one with {len(words)} outliers"
        ) from error
    return Look(seen, {site: null.beside(list(nulls.values())) for site, null in nulls.items()})


def _independent_sites(seen: Mapping[Site, Sequence[Evidence]]) -> float:
    """As how many sites these count that all tokens are measured at: what makes CLS constant makes the pooler so."""
    return max(
        independent(torch.tensor([[statistic(item) for item in found] for found in seen.values()]))
        for statistic in STATISTICS.values()
    )
