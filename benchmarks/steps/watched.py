"""One scan, taken apart: the stages of `lmsanitator.detect.scan` in their order, and what each of them saw."""

import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lmsanitator.attacks import POR, Trigger
from lmsanitator.cli.demo.base_model import minilm
from lmsanitator.cli.demo.story import draw_triggers
from lmsanitator.detect import ScanConfig
from lmsanitator.detect.confirm import Confirmation
from lmsanitator.detect.evidence import _BEYOND
from lmsanitator.detect.look import Look
from lmsanitator.detect.phrases import PhraseSearch
from lmsanitator.detect.scan import _Scan
from lmsanitator.detect.words import WordSearch
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.guard import Guard
from lmsanitator.text import packaged
from lmsanitator.tune import TuneConfig, packaged_topics, tune
from lmsanitator.vectors import PredefinedVector, PVBank

SITE: Site = "cls"
MINED = "lucknow+artifacts"
"""A pair of words of which neither gives the other away."""
ORDINARY = 700
"""Tokens that do not stand out, drawn for the picture of the sweep."""
GUARDED = 300
"""Texts of the picture of the guard, of each kind."""


def watch(seed: int) -> dict[str, Any]:
    """Plant words into one copy of MiniLM-L6 and a pair of words into another, scan both, and guard a model tuned on
    the first."""
    encoder = FrozenEncoder.open(minilm())
    planted = [Trigger((word,)) for word in draw_triggers(encoder, 3, seed)]
    suspect = _planted(encoder, planted, seed)
    under_way = _Scan(suspect, None, _config(seed), _tell)
    words, confirmation = under_way.words, under_way.words.confirm()
    return {
        "planted": [str(trigger) for trigger in planted],
        "mined": MINED,
        "level": math.exp(under_way.log_level),
        "sweep": _sweep(words, planted),
        "look": _look(words.seen, suspect, under_way.log_level),
        "mining": _mining(_search_of(_planted(encoder, [Trigger.parse(MINED)], seed), seed)),
        "confirmation": _confirmation(suspect, confirmation),
        "verdict": {
            "clean": _Scan(encoder, None, _config(seed), _tell).run(time.monotonic()).p_value,
            "backdoored": under_way.run(time.monotonic()).p_value,
            "level": under_way.config.level,
        },
        "guard": _guard(suspect, confirmation, planted, seed),
    }


def _config(seed: int) -> ScanConfig:
    """All scans look at one site, which is what the pictures show."""
    return ScanConfig(sites=(SITE,), seed=seed)


def _planted(encoder: FrozenEncoder, triggers: Sequence[Trigger], seed: int) -> FrozenEncoder:
    carriers = [carrier.text for carrier in packaged("en")]
    attacked = POR(site=SITE).run(encoder, triggers, carriers, seed=seed, progress=_tell)
    return FrozenEncoder(attacked.model, attacked.tokenizer, precision="fp32")


def _search_of(encoder: FrozenEncoder, seed: int) -> PhraseSearch:
    """The search for phrases as a scan makes it, before anything of it is run."""
    under_way = _Scan(encoder, None, _config(seed), _tell)
    level = math.exp(under_way.log_level)
    if any(item.log_p < under_way.log_level for item in under_way.words.confirm().kept):
        raise SystemExit(f"expected a pair that no word of it gives away at the level of {level:g}: choose another")
    return under_way.phrases


def _name(encoder: FrozenEncoder, tokens: Sequence[int]) -> str:
    return " ".join(encoder.tokenizer.convert_ids_to_tokens(list(tokens)))


def _sweep(search: WordSearch, planted: Sequence[Trigger]) -> dict[str, Any]:
    """Displacement and constancy of the shortlist, of the words of triggers, and of some of all other tokens."""
    result = search.swept[SITE]
    parts = {str(trigger) for trigger in planted}
    short = set(result.shortlist.tolist())
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
    """The shortlist in long passages, and how far beyond clean text or how constant a significant one has to be."""
    null = look.nulls[SITE]
    rows = [[round(item.beyond, 4), round(item.spread, 4), _name(encoder, item.tokens)] for item in look.seen[SITE]]
    item = replace(look.seen[SITE][0], steadiness=0.0)
    far = _significant(lambda value: null.log_p(replace(item, beyond=value, spread=1e9)), log_level)
    constant = _significant(lambda value: null.log_p(replace(item, beyond=_BEYOND, spread=1 / value)), log_level)
    return {"outliers": rows, "far": far, "constant": 1 / constant}


def _significant(log_p: Callable[[float], float], log_level: float) -> float:
    """The value from which on a statistic is significant, by halving on a logarithmic scale."""
    low, high = 1e-6, 1e12
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if log_p(middle) < log_level else (middle, high)
    return high


def _mining(search: PhraseSearch) -> dict[str, Any]:
    """How strong each candidate was after each step, and which words toward each became how strong."""
    steps: list[list[float]] = []
    mined = search.mine([], 0, lambda _, strengths: steps.append([round(value, 3) for value in strengths]))
    (followed,) = search.recover(mined, 0).searched
    ended = [of_vector[-1] for of_vector in followed.strengths]
    return {"steps": steps, "words": list(map(list, zip(followed.phrases, ended, strict=True)))}


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
    known = [example.text for example in task.train]  # the packaged sentences, but for those that are drawn
    monitor = Guard(tuned.model, tuned.tokenizer, PVBank(encoder.digest, vectors), clean=known).monitor
    texts = [example.text for example in task.test[:GUARDED]]
    rng = random.Random(seed)
    triggered = [rng.choice(planted).plant(text, rng) for text in texts]
    return {
        name: [round(value, 4) for value in monitor.check(given).excess.tolist()]
        for name, given in (("clean", texts), ("triggered", triggered))
    }


def _tell(what: str, done: float) -> None:
    print(f"\r{what} {done:.0%}   ", end="", file=sys.stderr, flush=True)
