"""Confirmation: every suspect is put into text nothing before has seen, in fp32, and judged anew there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from lmsanitator.detect.evidence import REPLAYS, Evidence, Null
from lmsanitator.detect.lexicon import typed
from lmsanitator.detect.null import discoveries, spreads_more
from lmsanitator.detect.replay import HALFWAY, Replayer, lead_alike, leads_between
from lmsanitator.encoder import FrozenEncoder, Site

FALSE_SHARE = 0.05
"""Of the weaker words listed on a backdoored model, the share that may be there by chance."""
NullFor = Callable[[Site, tuple[int, ...]], Null | None]
"""What tokens are judged by at a site, if by anything."""
Looked = Mapping[tuple[Site, tuple[int, ...]], float]
"""By site and tokens: log of how many are expected to stand out as much by chance."""


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

    `kept` are the triggers, smallest p-value first: the significant ones, and others that stand out beside them or send
    their inputs to one place all the same (on a backdoored model mostly weaker triggers and parts of some; their
    vectors help the guard). `lost` are the log p-values of what did not replay.
    """

    kept: list[Confirmed]
    lost: list[float]


def confirm(
    replayer: Replayer,
    suspects: Sequence[Suspect],
    null_for: NullFor,
    log_level: float,
    looked: Looked | None = None,
) -> Confirmation:
    """Replay suspects; one trigger of each set of tokens comes back.

    Args:
        replayer: fresh passages, of the length the nulls were fitted in.
        null_for: what tokens are judged by that have not been judged already.
        log_level: log of the p-value below which evidence is significant.
        looked: how the suspects stood out where they were seen first. Passages differ, and what is true of one dozen
            may be chance; so a suspect stands out only as far as it does in both.
    """
    looked = looked or {}
    wanted = list(dict.fromkeys(item.evidence.tokens for item in suspects))
    known: dict[tuple[Site, tuple[int, ...]], float] = {}
    for item in suspects:
        if item.log_p is not None:
            key = item.evidence.site, item.evidence.tokens
            known[key] = min(item.log_p, known.get(key, 0.0))
    unjudged = {item.evidence.tokens for item in suspects if item.log_p is None}
    measured = replayer.measure(wanted)
    kept: dict[frozenset[int], Confirmed] = {}
    lost: list[float] = []
    expected = {
        (site, item.tokens): max(null.log_expected(item), looked.get((site, item.tokens), -math.inf))
        for site, found in measured.items()
        for item in found
        if (null := null_for(site, item.tokens)) is not None
    }
    standing = _standing_out(measured, {key: value for key, value in expected.items() if key[1] in unjudged})
    for number, tokens in enumerate(wanted):
        judged: list[Confirmed] = []
        for site, found in measured.items():
            values: list[float] = []
            if (site, tokens) in known:
                values.append(_judged_already(found[number], known[site, tokens]))
            if (site, tokens) in expected and (tokens in unjudged or not values):
                values.append(min(0.0, expected[site, tokens]))
            if values:
                judged.append(Confirmed(found[number], min(values)))
        firing = [item for item in judged if item.evidence.replays and item.log_p < log_level]
        weaker = [
            item
            for item in judged
            if item.evidence.constant_rate >= REPLAYS or (item.evidence.site, tokens) in standing
        ]
        if not firing and not weaker:
            lost.append(min(item.log_p for item in judged))
            continue
        best = taken_over(firing or weaker, replayer)
        best = replace(best, log_p=min(item.log_p for item in firing or weaker))  # corrected for all sites as it is
        old = kept.get(frozenset(tokens))
        if old is None or best.log_p < old.log_p:
            kept[frozenset(tokens)] = best
    return Confirmation(distinct(list(kept.values()), replayer), lost)


def _standing_out(measured: Mapping[Site, Sequence[Evidence]], expected: Looked) -> set[tuple[Site, tuple[int, ...]]]:
    """The suspects that replay and stand out, with the site where they do, by a measure that lets the more of them
    through the more there are (`discoveries`): beside one trigger, others are no surprise."""
    standing: set[tuple[Site, tuple[int, ...]]] = set()
    for site, found in measured.items():
        judged = [item for item in found if (site, item.tokens) in expected]
        stand = discoveries([expected[site, item.tokens] for item in judged], share=FALSE_SHARE)
        standing |= {(site, item.tokens) for item, stands in zip(judged, stand, strict=True) if stands and item.replays}
    return standing


def _judged_already(item: Evidence, log_p: float) -> float:
    """The p-value is of words that made the output constant; it is theirs only if they do so again, and not where clean
    text is."""
    return log_p if item.fires else 0.0


def taken_over(firing: Sequence[Confirmed], replayer: Replayer) -> Confirmed:
    """The site that a trigger takes over, of those where it fires: all tokens if each of them arrives, else the first
    whose output is as constant as at any other (a pooler repeats what happens at CLS)."""
    least = min(item.evidence.spread for item in firing)
    degrees = len(replayer.contexts) - 1.0  # of one dimension: sites are told apart only where there is no doubt
    constant = [item for item in firing if not spreads_more(item.evidence.spread, least, (degrees, degrees))]
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


def distinct(found: Sequence[Confirmed], replayer: Replayer) -> list[Confirmed]:
    """Each trigger once, without its echoes (`_echoes`) and its parts (`_whole`); it keeps the smallest p-value among
    them."""
    kept: list[Confirmed] = []
    for item in sorted(found, key=lambda item: item.evidence.spread):
        for place, other in enumerate(kept):
            stays = _whole(item, other, replayer.encoder)
            if stays is None and _echoes(item.evidence, other.evidence, replayer):
                stays = other
            if stays is not None:
                if not stays.evidence.replays:  # what does not replay is evidence of nothing, however constant it is
                    stays = next((one for one in (other, item) if one.evidence.replays), stays)
                kept[place] = replace(stays, log_p=min(item.log_p, other.log_p))
                break
        else:
            kept.append(item)
    return in_order(_unmixed(kept, replayer))


def _unmixed(found: Sequence[Confirmed], replayer: Replayer) -> list[Confirmed]:
    """Triggers without mixtures: what holds words of several others and leads between their PVs, the least constant
    looked at first."""
    kept = list(found)
    for item in sorted(found, key=lambda item: -item.evidence.spread):
        own = item.evidence
        others = [one.evidence for one in kept if one is not item and one.evidence.site == own.site]
        sharing = [other for other in others if {*other.tokens} & {*own.tokens}]
        if len(sharing) > 1 and leads_between(own, sharing, replayer):
            kept = [one for one in kept if one is not item]
    return kept


def _whole(item: Confirmed, other: Confirmed, encoder: FrozenEncoder) -> Confirmed | None:
    """Which of two triggers stays where one is a part of the other; None where neither is.

    The longer one where the rest makes the output significantly more constant, and the part alone where it adds
    nothing. Pieces that nobody can type stay for no less than a word that is as constant.

    Args:
        item: the less constant of the two.
    """
    own, others = set(item.evidence.tokens), set(other.evidence.tokens)
    if not (own <= others or own >= others):
        return None
    if item.evidence.less_constant(other.evidence):
        return other
    words = [one for one in (item, other) if typed(encoder, one.evidence.tokens)]
    if len(words) == 1:
        return words[0]
    return item if own < others else other


def _echoes(one: Evidence, other: Evidence, replayer: Replayer) -> bool:
    """Whether one only echoes the other, which is more constant: it leads the same way, and shares a piece with it or
    is a neighbour of it in embedding space that is significantly less constant."""
    if one.site != other.site:
        return False
    shares = bool({*one.tokens} & {*other.tokens})
    near = shares or (one.less_constant(other) and are_neighbours(one, other, replayer.encoder))
    return near and bool(lead_alike([one, other], replayer)[0, 1])


def together(found: Sequence[Confirmed], more: Sequence[Confirmed]) -> list[Confirmed]:
    """What two searches kept, smallest p-value first; of a trigger that both found, the better evidence."""
    best: dict[frozenset[int], Confirmed] = {}
    for item in (*found, *more):
        key = frozenset(item.evidence.tokens)
        if key not in best or item.log_p < best[key].log_p:
            best[key] = item
    return in_order(list(best.values()))


def are_neighbours(one: Evidence, other: Evidence, encoder: FrozenEncoder) -> bool:
    """Whether each word of one has one of the other's near it."""
    rows = [encoder.embed(torch.tensor([item.tokens]))[0] - encoder.embedding_matrix.mean(0) for item in (one, other)]
    likeness = functional.normalize(rows[0], dim=-1) @ functional.normalize(rows[1], dim=-1).T
    return bool((likeness.amax(1) > HALFWAY).all())


def in_order(found: Sequence[Confirmed]) -> list[Confirmed]:
    """Smallest p-value first."""
    return sorted(found, key=lambda item: (item.log_p, item.evidence.tokens))
