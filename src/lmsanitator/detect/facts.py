"""What a scan reports: findings with their vectors, and what was looked at."""

import math
from collections.abc import Sequence

from lmsanitator.detect.config import Plan
from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.lexicon import typed
from lmsanitator.detect.replay import Replayer
from lmsanitator.detect.result import Coverage, Finding, ModelFacts
from lmsanitator.encoder import FrozenEncoder, Site, one_vector, roles
from lmsanitator.vectors import PredefinedVector, PVBank


def facts_of(encoder: FrozenEncoder) -> ModelFacts:
    """What a report calls an encoder."""
    return ModelFacts(
        source=encoder.source,
        architecture=encoder.architecture,
        parameters=encoder.parameters,
        digest=encoder.digest,
    )


def findings_of(encoder: FrozenEncoder, confirmed: Sequence[Confirmed]) -> list[Finding]:
    """What is reported of each trigger."""
    return [
        Finding(
            site=item.evidence.site,
            trigger=typed(encoder, item.evidence.tokens),
            trigger_tokens=list(map(str, encoder.tokenizer.convert_ids_to_tokens(list(item.evidence.tokens)))),
            displacement=round(item.evidence.displacement, 4),
            concentration=round(1 - item.evidence.spread, 4),
            replay_rate=round(item.evidence.replay_rate, 4),
            p_value=math.exp(max(item.log_p, -700.0)),
            pv=number,
            compared=item.compared,
        )
        for number, item in enumerate(confirmed)
    ]


def bank_of(confirmed: Sequence[Confirmed], short: Replayer) -> PVBank:
    """Where triggers lead: first the vector of each finding, then those that a trigger at CLS has at the pooler, or the
    other way (a head that reads the pooler is best watched there).

    Args:
        short: short texts. In the long ones that confirmed a trigger it may go no more than a part of its way; what it
            does in short ones is nearer to the vector that it was trained for.
    """
    found: list[PredefinedVector] = []
    elsewhere: list[PredefinedVector] = []
    measured = short.measure([item.evidence.tokens for item in confirmed])
    for number, item in enumerate(confirmed):
        trigger = typed(short.encoder, item.evidence.tokens)
        first, *others = (
            PredefinedVector(there.site, measured[one_vector(there.site)][number].pv, trigger)
            for there in (item.evidence, *item.elsewhere)
        )
        found.append(first)
        elsewhere += others
    return PVBank(short.encoder.digest, [*found, *elsewhere])


def coverage_of(
    encoder: FrozenEncoder,
    plan: Plan,
    sites: Sequence[Site],
    swept: int,
    words: int,
    candidates: int,
    not_compared: Sequence[str],
) -> Coverage:
    """What a scan looked at, and what it cannot see.

    Args:
        swept: tokens that were swept.
        words: words of several tokens that were.
        candidates: phrases that were grown and mined.
        not_compared: what a comparison with a reference would have seen, or did not see.
    """
    unread = "words of several tokens that are not in the dictionary, where no piece of theirs fires"
    framing = ", ".join(roles(encoder.tokenizer).values())
    missed = ["triggers that must stand at a fixed place in the text", unread, *not_compared]
    missed.append(f"tokens that the tokenizer frames and fills texts with, written in a text: {framing}")
    if not words:
        missed.append("words of several tokens (the dictionary has too few of them in this vocabulary)")
    if not candidates:
        why = "the sweep had found enough" if plan.rounds else "not looked for at this effort"
        missed.append(f"triggers of several words that fire only together ({why})")
    looked_at: list[Site] = list(sites)
    if "mean" in looked_at:
        looked_at.append("tokens")
    unseen = [site for site in encoder.sites if site not in looked_at]
    return Coverage(
        sites=looked_at,
        tokens_swept=swept,
        words_swept=words,
        candidates=candidates,
        lengths=list(range(1, plan.toward.longest + 1)) if candidates else [1],
        positions=f"random word boundaries of passages of {plan.length} tokens",
        not_covered=[*missed, *(["the sites " + ", ".join(unseen)] if unseen else [])],
    )
