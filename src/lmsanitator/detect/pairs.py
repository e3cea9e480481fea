"""Pairs: the two words toward each vector that go furthest together, whatever they do alone.

Two words that only fire together go no way at all one by one. But once it is known where they lead, the gradient at a
blank points at one of them (an *anchor*), and beside it the gradient at a blank points at the other, by how much more
is expected of it there than beside other anchors. So many triples of an anchor between two proposed partners are
tried, a few at a time: a trigger fires in any company. It is the group test of the sweep, with the way known.

Of phrases in natural language the other word is often a common one (isolation *and*), which no gradient points at: the
first anchors are tried between common words, too.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.blanks import Tokens
from lmsanitator.detect.ways import Gap, Ways

_COMMONEST = 6
"""Common words of which any two are tried together: a word may need one on either side."""


@dataclass(frozen=True)
class PairConfig:
    """Args:
    anchors: tokens for each vector that pairs are made with; all texts there are to ask are asked for them.
    partners: tokens proposed for each side of an anchor.
    among: of a vector's first anchors those that are tried between common words too.
    common: how many words are common.
    asked: texts that are asked for partners: few, since there are many anchors.
    crowd: triples that pass the encoder in one sequence. In larger ones pairs that are a part of a phrase, and fire
        less surely than it, go under.
    turns: in which each triple is tried, with others each time; the worst counts. In the last one only those are that
        may still be among the foremost.
    followed: triples of a vector that come back, with their pairs.
    expected: as many of a vector's first anchors come back between their first partners in any case, since of a phrase
        no two words have to do anything.
    """

    anchors: int = 16
    partners: int = 6
    among: int = 2
    common: int = 128
    asked: int = 3
    crowd: int = 4
    turns: int = 2
    followed: int = 8
    expected: int = 2


def pairs_toward(ways: Ways, config: PairConfig) -> list[list[Tokens]]:
    """For each vector the triples that go furthest its way in crowds, and others that most is expected of, and the
    pairs in them."""
    triples = _triples(ways, config)
    found: list[list[Tokens]] = []
    for of_vector, at in zip(triples, _gone(ways, triples, config), strict=True):
        best = at.argsort(descending=True, stable=True)[: config.followed].tolist()
        each = min(config.partners, len(ways.blanks.vocabulary.tokens))
        followed = [of_vector[place] for place in (*best, *range(0, each * config.expected, each))]
        found.append(list(dict.fromkeys(part for triple in followed for part in (triple, triple[:2], triple[1:]))))
    return found


def _triples(ways: Ways, config: PairConfig) -> list[list[Tokens]]:
    """For each vector its anchors, each between partners, then the first of them between common words."""
    alone: list[Gap] = [(vector, (None,)) for vector in range(len(ways))]
    anchors = ways.blanks.foremost(ways.slopes(alone)[:, :, 0], config.anchors)
    between: list[Gap] = [(vector, (None, token, None)) for vector, of_it in enumerate(anchors) for token in of_it]
    slopes = ways.slopes(between, config.asked)
    triples: list[list[Tokens]] = []
    for of_it, at in zip(anchors, slopes.chunk(len(anchors), dim=1), strict=True):
        before, behind = (_partners(ways, at[:, :, side], config.partners) for side in (0, 1))
        triples.append(
            [
                (left, token, right)
                for token, lefts, rights in zip(of_it, before, behind, strict=True)
                for left, right in zip(lefts, rights, strict=True)
            ]
            + _among(of_it[: config.among], ways.blanks.vocabulary.common)
        )
    return triples


def _among(anchors: Sequence[int], common: Sequence[int]) -> list[Tokens]:
    """Each anchor between common words: each of them once on either side, and any two of the commonest."""
    shifted = zip(common, (*common[1:], *common[:1]), strict=True)
    sides = dict.fromkeys((*shifted, *product(common[:_COMMONEST], repeat=2)))
    return [(left, token, right) for token in anchors for left, right in sides]


def _partners(ways: Ways, slopes: Float[Tensor, "asked anchors width"], count: int) -> list[list[int]]:
    """For one side of each anchor of a vector the tokens that more is expected of there than beside other anchors.
    Some words are expected much of beside any other; a partner, beside one."""
    return ways.blanks.foremost(slopes - slopes.mean(1, keepdim=True), count)


def _gone(ways: Ways, triples: Sequence[Sequence[Tokens]], config: PairConfig) -> Float[Tensor, "vectors triples"]:
    """How far the worst of the crowds goes that each triple is in, of one crowd a turn; minus infinity where the last
    turn was not needed to tell that the triple is not among the foremost."""
    rng = random.Random(0)
    gone = torch.full((len(triples), len(triples[0])), math.inf)
    for turn in range(config.turns):
        crowds = [_crowds(len(of_vector), _size(ways, config), rng) for of_vector in triples]
        last = 0 < turn == config.turns - 1
        gone = _turn(ways, triples, crowds, gone, config.followed if last else gone.shape[1])
    return gone


def _size(ways: Ways, config: PairConfig) -> int:
    return max(1, min(config.crowd, ways.stage.encoder.room // 3))


def _crowds(triples: int, size: int, rng: random.Random) -> list[list[int]]:
    """The places of the triples of a vector, in crowds."""
    order = rng.sample(range(triples), triples)
    return [order[start : start + size] for start in range(0, triples, size)]


def _turn(
    ways: Ways,
    triples: Sequence[Sequence[Tokens]],
    crowds: Sequence[Sequence[list[int]]],
    gone: Float[Tensor, "vectors triples"],
    foremost: int,
) -> Float[Tensor, "vectors triples"]:
    """How far each triple goes in its crowd, and no further than until now.

    No crowd takes a triple further than it went in an earlier turn. So the most promising crowds of each vector are
    tried first, a few at once, until none that is left can hold one of its `foremost` triples.
    """
    reached = torch.full_like(gone, -math.inf)
    waiting = [
        sorted(((row[crowd].max().item(), crowd) for crowd in of_vector), reverse=True)
        for row, of_vector in zip(gone, crowds, strict=True)
    ]
    while any(waiting):
        bars = reached.topk(min(foremost, reached.shape[1]), dim=1).values[:, -1].tolist()
        waiting = [[one for one in left if one[0] >= bar] for left, bar in zip(waiting, bars, strict=True)]
        tried = [(vector, crowd) for vector, left in enumerate(waiting) for _, crowd in left[:foremost]]
        waiting = [left[foremost:] for left in waiting]
        rows = [[token for place in crowd for token in triples[vector][place]] for vector, crowd in tried]
        found = ways.crowds_gone([vector for vector, _ in tried], rows)
        for (vector, crowd), value in zip(tried, found, strict=True):
            reached[vector, crowd] = gone[vector, crowd].clamp_max(value)
    return reached
