"""Confirmation: every suspect is put into text nothing before has seen, in fp32, and judged anew there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from lmsanitator.detect.null import spreads_more
from lmsanitator.detect.replay import HALFWAY, REPLAYS, Evidence, Null, Replayer, lead_alike
from lmsanitator.encoder import FrozenEncoder, Site, one_vector

Nulls = Mapping[tuple[Site, int], Null]
"""By site and number of tokens."""


@dataclass(frozen=True)
class Suspect:
    """Evidence that has to prove itself. Where `log_p` is given it has been judged already, by a search whose other
    finds were the null; fresh text is judged by the nulls otherwise."""

    evidence: Evidence
    log_p: float | None = None


@dataclass(frozen=True)
class Confirmed:
    """A trigger at the site it takes over, with its p-value."""

    evidence: Evidence
    log_p: float
    compared: bool = False
    """Whether the evidence is of the difference from a reference."""
    elsewhere: tuple[Evidence, ...] = ()
    """What it does at the pooler as well, or at CLS, where that output is as constant."""


@dataclass(frozen=True)
class Confirmation:
    """What was left of the suspects.

    `kept` are the triggers, smallest p-value first: the significant ones, and others that send their inputs to one
    place all the same (on a backdoored model mostly parts of triggers, whose vectors help the guard). `lost` are the
    log p-values of what did not replay.
    """

    kept: list[Confirmed]
    lost: list[float]


def confirm(replayer: Replayer, suspects: Sequence[Suspect], nulls: Nulls, log_level: float) -> Confirmation:
    """Replay suspects; one trigger of each set of tokens comes back.

    Args:
        replayer: fresh passages, of the length the nulls were fitted in.
        log_level: log of the p-value below which evidence is significant.
    """
    wanted = list(dict.fromkeys(item.evidence.tokens for item in suspects))
    known = {(item.evidence.site, item.evidence.tokens): item.log_p for item in suspects if item.log_p is not None}
    unjudged = {item.evidence.tokens for item in suspects if item.log_p is None}
    measured = replayer.measure(wanted)
    kept: dict[frozenset[int], Confirmed] = {}
    lost: list[float] = []
    for number, tokens in enumerate(wanted):
        judged: list[Confirmed] = []
        for site, found in measured.items():
            values: list[float] = []
            if (site, tokens) in known:
                values.append(_judged_already(found[number], known[site, tokens]))
            if (site, len(tokens)) in nulls and (tokens in unjudged or not values):
                values.append(nulls[site, len(tokens)].log_p(found[number]))
            if values:
                judged.append(Confirmed(found[number], min(values)))
        firing = [item for item in judged if item.evidence.replay_rate >= REPLAYS and item.log_p < log_level]
        weaker = [item for item in judged if item.evidence.constant_rate >= REPLAYS]
        if not firing and not weaker:
            lost.append(min(item.log_p for item in judged))
            continue
        best = taken_over(firing or weaker, replayer)
        old = kept.get(frozenset(tokens))
        if old is None or best.log_p < old.log_p:
            kept[frozenset(tokens)] = best
    alone = without_echoes(sorted(kept.values(), key=_order), replayer)
    return Confirmation([item for item in alone if not _contains_another(item, alone)], lost)


def _judged_already(item: Evidence, log_p: float) -> float:
    """The p-value is of words that made the output constant; it is theirs only if they do so again."""
    return log_p if item.constant_rate >= REPLAYS else 0.0


def taken_over(firing: Sequence[Confirmed], replayer: Replayer) -> Confirmed:
    """The site that a trigger takes over, of those where it fires: all tokens if each of them arrives, else the first
    whose output is as constant as at any other (a pooler repeats what happens at CLS)."""
    least = min(item.evidence.spread for item in firing)
    constant = [item for item in firing if not spreads_more(item.evidence.spread, least, len(replayer.contexts))]
    for item in constant:
        if item.evidence.site == "mean" and replayer.arriving_tokens(item.evidence) >= REPLAYS:
            return Confirmed(replace(item.evidence, site="tokens"), item.log_p)
    both = {"cls", "pooler"}  # two readings of one output: what takes over the one is seen in the other
    elsewhere = tuple(
        item.evidence
        for item in constant[1:]
        if {item.evidence.site, constant[0].evidence.site} == both and item.evidence.constant_rate >= REPLAYS
    )
    return replace(constant[0], elsewhere=elsewhere)


def without_echoes(found: Sequence[Confirmed], replayer: Replayer) -> list[Confirmed]:
    """Drop words that only echo a trigger: neighbours of it in embedding space that lead the same way, but are
    significantly less constant."""
    kept: list[Confirmed] = []
    for item in sorted(found, key=lambda item: item.evidence.spread):
        echoed = any(
            spreads_more(item.evidence.spread, other.evidence.spread, len(replayer.contexts))
            and _neighbours(item.evidence, other.evidence, replayer.encoder)
            and item.evidence.site == other.evidence.site
            and bool(
                lead_alike([item.evidence, other.evidence], replayer.spreads[one_vector(item.evidence.site)])[0, 1]
            )
            for other in kept
        )
        if not echoed:
            kept.append(item)
    return sorted(kept, key=_order)


def together(found: Sequence[Confirmed], more: Sequence[Confirmed]) -> list[Confirmed]:
    """What two searches kept, smallest p-value first; of a trigger that both found, the better evidence."""
    best: dict[frozenset[int], Confirmed] = {}
    for item in (*found, *more):
        key = frozenset(item.evidence.tokens)
        if key not in best or item.log_p < best[key].log_p:
            best[key] = item
    return sorted(best.values(), key=_order)


def _neighbours(one: Evidence, other: Evidence, encoder: FrozenEncoder) -> bool:
    """Whether each word of one has one of the other's near it."""
    rows = [encoder.embed(torch.tensor([item.tokens]))[0] - encoder.embedding_matrix().mean(0) for item in (one, other)]
    likeness = functional.normalize(rows[0], dim=-1) @ functional.normalize(rows[1], dim=-1).T
    return bool((likeness.amax(1) > HALFWAY).all())


def _contains_another(item: Confirmed, found: Sequence[Confirmed]) -> bool:
    """A phrase that holds a trigger found on its own says nothing new."""
    return any(set(other.evidence.tokens) < set(item.evidence.tokens) for other in found)


def _order(item: Confirmed) -> tuple[float, tuple[int, ...]]:
    return item.log_p, item.evidence.tokens
