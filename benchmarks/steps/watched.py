"""One scan, taken apart: the stages of `lmsanitator.detect.scan` in their order, and what each of them saw."""

import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.attacks import POR, Trigger
from lmsanitator.cli.demo.base_model import minilm
from lmsanitator.cli.demo.story import draw_triggers
from lmsanitator.detect import ScanConfig, SweepResult, mining
from lmsanitator.detect.confirm import Confirmation
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.growth import Growth, grow
from lmsanitator.detect.look import Look
from lmsanitator.detect.null import TailNull
from lmsanitator.detect.objective import mining_loss, strength
from lmsanitator.detect.phrases import PhraseSearch
from lmsanitator.detect.replay import EvidenceNull
from lmsanitator.detect.scan import _Scan
from lmsanitator.detect.words import WordSearch
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.guard import Guard
from lmsanitator.text import packaged
from lmsanitator.tune import TuneConfig, packaged_topics, tune
from lmsanitator.vectors import PredefinedVector, PVBank

SITE: Site = "cls"
PAIR = "lamp+river"
ORDINARY = 700
"""Tokens that do not stand out, drawn for the picture of the sweep."""
GUARDED = 300
"""Texts of the picture of the guard, of each kind."""


def watch(seed: int) -> dict[str, Any]:
    """Plant words into one copy of MiniLM-L6, a pair of words into another, scan both, and guard a model tuned on the
    first."""
    encoder = FrozenEncoder.open(minilm())
    planted = [Trigger((word,)) for word in draw_triggers(encoder, 3, seed)]
    suspect = _planted(encoder, planted, seed)
    under_way = _Scan(suspect, None, ScanConfig(seed=seed), _tell)
    words, confirmation = under_way.words, under_way.words.confirm()
    return {
        "planted": [str(trigger) for trigger in planted],
        "pair": PAIR,
        "level": math.exp(under_way.log_level),
        "sweep": _sweep(words, planted),
        "look": _look(words.seen, suspect, under_way.log_level),
        **_phrases(_planted(encoder, [Trigger.parse(PAIR)], seed), seed),
        "confirmation": _confirmation(suspect, confirmation),
        "verdict": {
            "clean": _Scan(encoder, None, ScanConfig(seed=seed), _tell).run(time.monotonic()).p_value,
            "backdoored": under_way.run(time.monotonic()).p_value,
            "level": under_way.config.level,
        },
        "guard": _guard(suspect, confirmation, planted, seed),
    }


def _planted(encoder: FrozenEncoder, triggers: Sequence[Trigger], seed: int) -> FrozenEncoder:
    carriers = [carrier.text for carrier in packaged("en")]
    attacked = POR(site=SITE).run(encoder, triggers, carriers, seed=seed, progress=_tell)
    return FrozenEncoder(attacked.model, attacked.tokenizer, precision="fp32")


def _phrases(encoder: FrozenEncoder, seed: int) -> dict[str, Any]:
    """Growth, and mining although growth may have found the pair already."""
    under_way = _Scan(encoder, None, ScanConfig(seed=seed), _tell)
    words = under_way.words
    search = PhraseSearch(
        encoder, under_way.plan, under_way.mining, words.passages, words.tokens, under_way.log_level, seed, _tell
    )
    return {"growth": _growth(search, words.swept, seed), "mining": _mining(search)}


def _name(encoder: FrozenEncoder, tokens: Sequence[int]) -> str:
    return " ".join(encoder.tokenizer.convert_ids_to_tokens(list(tokens)))


def _sweep(search: WordSearch, planted: Sequence[Trigger]) -> dict[str, Any]:
    """Displacement and constancy of the shortlist, of the words of triggers, and of some of all other tokens."""
    result = search.swept[SITE]
    parts = {str(trigger) for trigger in planted}
    short = set(search.shortlists[SITE])
    drawn = set(random.Random(search.seed).sample(range(len(result.tokens)), ORDINARY))
    points = []
    for row, token in enumerate(result.tokens.tolist()):
        word = _name(search.encoder, [token])
        if row in drawn or token in short or word in parts:
            label = word if word in parts else ""
            points.append(
                [round(result.displacement[row].item(), 4), round(result.spread[row].item(), 4), token in short, label]
            )
    return {"tokens": len(result.tokens), "points": points}


def _look(look: Look, encoder: FrozenEncoder, log_level: float) -> dict[str, Any]:
    """The shortlist in long passages, and from which displacement and which spread on an outlier is significant."""
    null = look.nulls[SITE]
    if not isinstance(null, EvidenceNull):
        raise TypeError("expected the null of an encoder, not of a difference")
    rows = [
        [round(item.displacement, 4), round(item.spread, 4), _name(encoder, item.tokens)] for item in look.seen[SITE]
    ]
    trials = null.log_trials + math.log(2)  # both tails are looked at
    far, constant = (_significant(tail, trials, log_level) for tail in (null.far, null.constant))
    return {"outliers": rows, "far": math.exp(far), "constant": math.exp(-constant)}


def _significant(tail: TailNull, trials: float, log_level: float) -> float:
    """The value from which on a statistic is significant, by halving."""
    low, high = tail.threshold, tail.threshold + 50
    while high - low > 1e-6:
        middle = (low + high) / 2
        beyond = tail.log_expected(torch.tensor(middle), trials).item() < log_level
        low, high = (low, middle) if beyond else (middle, high)
    return high


def _growth(search: PhraseSearch, swept: Mapping[Site, SweepResult], seed: int) -> list[list[Any]]:
    """How strong the best phrase of each family became, as the scan grows them at this site."""
    shape = search.plan.growth
    contexts = make_contexts(search.encoder, search.texts, shape.contexts, longest=shape.context_tokens, seed=seed + 5)
    anchors = swept[SITE].foremost(shape.families * shape.anchors)
    random.Random(seed + 5).shuffle(anchors)
    families = [anchors[start :: shape.families] for start in range(shape.families)]
    clean = search.spread[SITE]
    grown = grow(search.encoder, SITE, families, contexts, clean, shape, search.allowed, progress=_tell)
    measured = Growth(search.encoder, SITE, contexts, clean, shape, search.allowed).strengths(grown)
    return sorted([[_name(search.encoder, tokens), round(value, 3)] for tokens, value in measured.items()], key=_last)


def _mining(search: PhraseSearch) -> dict[str, Any]:
    """How strong each candidate was after each step."""
    steps: list[list[float]] = []

    def recorded(
        triggered: Float[Tensor, "candidates contexts hidden"],
        clean: Float[Tensor, "contexts hidden"],
        found: Float[Tensor, "known hidden"],
    ) -> Float[Tensor, "candidates"]:
        steps.append([round(value, 3) for value in strength(triggered.detach(), clean).tolist()])
        return mining_loss(triggered, clean, found)

    with mock.patch.object(mining, "mining_loss", recorded):
        mined = search.mine([], 0)[SITE]
    first = steps[: search.plan.mining.steps]  # this site is mined first
    return {"steps": first, "ended": [_name(search.encoder, item.tokens) for item in mined]}


def _confirmation(encoder: FrozenEncoder, confirmation: Confirmation) -> dict[str, Any]:
    kept = [[_name(encoder, item.evidence.tokens), item.log_p] for item in confirmation.kept]
    return {"kept": kept, "lost": confirmation.lost}


def _guard(
    encoder: FrozenEncoder, confirmation: Confirmation, planted: Sequence[Trigger], seed: int
) -> dict[str, list[float]]:
    """The match of clean and of triggered texts, less the threshold of the PV that is nearest."""
    task = packaged_topics(seed)
    tuned = tune(encoder, task, TuneConfig(seed=seed), progress=_tell)
    vectors = [PredefinedVector(item.evidence.site, item.evidence.pv) for item in confirmation.kept]
    monitor = Guard(tuned.model, tuned.tokenizer, PVBank(encoder.digest, vectors)).monitor
    texts = [example.text for example in task.test[:GUARDED]]
    rng = random.Random(seed)
    triggered = [rng.choice(planted).plant(text, rng) for text in texts]
    return {
        name: [round(value, 4) for value in monitor.check(given).excess.tolist()]
        for name, given in (("clean", texts), ("triggered", triggered))
    }


def _last(row: Sequence[Any]) -> float:
    return float(row[-1])


def _tell(what: str, done: float) -> None:
    print(f"\r{what} {done:.0%}   ", end="", file=sys.stderr, flush=True)
