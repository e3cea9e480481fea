"""What a scan reports: findings with their vectors, and what was looked at."""

import math
from collections.abc import Sequence

from lmsanitator.detect.config import Plan
from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.lexicon import typed
from lmsanitator.detect.result import Coverage, Finding, ModelFacts
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.vectors import PredefinedVector, PVBank


def facts_of(encoder: FrozenEncoder) -> ModelFacts:
    """What a report calls an encoder."""
    return ModelFacts(
        source=encoder.source,
        architecture=encoder.architecture,
        parameters=encoder.parameters,
        digest=encoder.digest,
    )


def findings_of(encoder: FrozenEncoder, confirmed: Sequence[Confirmed]) -> tuple[list[Finding], PVBank]:
    """What is reported of each trigger, and the vectors: first that of each finding, then those that a trigger at
    CLS has at the pooler, or the other way (a head that reads the pooler is best watched there)."""
    findings: list[Finding] = []
    vectors: list[PredefinedVector] = []
    elsewhere: list[PredefinedVector] = []
    for item in confirmed:
        evidence = item.evidence
        trigger = typed(encoder, evidence.tokens)
        findings.append(
            Finding(
                site=evidence.site,
                trigger=trigger,
                trigger_tokens=list(map(str, encoder.tokenizer.convert_ids_to_tokens(list(evidence.tokens)))),
                displacement=round(evidence.displacement, 4),
                concentration=round(1 - evidence.spread, 4),
                replay_rate=round(evidence.replay_rate, 4),
                p_value=math.exp(max(item.log_p, -700.0)),
                pv=len(vectors),
                compared=item.compared,
            )
        )
        vectors.append(PredefinedVector(evidence.site, evidence.pv, trigger))
        elsewhere += [PredefinedVector(other.site, other.pv, trigger) for other in item.elsewhere]
    return findings, PVBank(encoder.digest, [*vectors, *elsewhere])


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
    missed = ["triggers that must stand at a fixed place in the text", unread, *not_compared]
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
