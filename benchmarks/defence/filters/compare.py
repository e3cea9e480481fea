"""The guard beside input filters of the literature: one tuned model, the same texts, thresholds for the same rates."""

import random
from collections.abc import Sequence
from typing import Any

from benchmarks.defence.attacked import Fate, any_of, mean_of, success
from benchmarks.defence.filters import FILTERS, LanguageModel, Look, Setting
from benchmarks.defence.filters.interface import threshold_for
from benchmarks.defence.tuning import SEED, labels_of
from lmsanitator.attacks import Trigger
from lmsanitator.guard import Guard
from lmsanitator.tune import Example, TunedModel

RATES = (0.005, 0.05)
"""Clean texts that may be touched: the bar for the guard, and what the papers allow."""
CLEAN, ATTACKED, CALIBRATION, PREPARED = 200, 50, 200, 256
"""Texts, at most: tested clean, attacked, to set thresholds by, and to prepare the filters with."""


def compare(
    tuned: TunedModel,
    guard: Guard,
    test: Sequence[Example],
    train: Sequence[Example],
    triggers: Sequence[Trigger],
    trusted: LanguageModel,
    rate_of_guard: float,
) -> list[dict[str, Any]]:
    """A row for the guard, and one for each filter and rate.

    Args:
        train: clean examples, in random order; some prepare the filters, others set the thresholds.
        trusted: for the filter that needs a language model.
        rate_of_guard: what the guard was asked for.
    """
    clean = test[:CLEAN]
    found = labels_of(tuned, [example.text for example in clean])
    right = [example for example, label in zip(clean, found, strict=True) if label == example.label][:ATTACKED]
    attacked = [_triggered(right, trigger) for trigger in triggers]
    wrong = [
        [label != example.label for label, example in zip(labels_of(tuned, texts), right, strict=True)]
        for texts in attacked
    ]
    unguarded = {
        "filter": "none",
        "rate": None,
        "clean": len(clean),
        "attacked": len(right),
        "cacc": sum(label == example.label for label, example in zip(found, clean, strict=True)) / len(clean),
        "touched": 0.0,
        "asr": any_of(wrong),
        "asr_mean": mean_of(wrong),
    }
    rows = [unguarded, unguarded | {"filter": "guard", "rate": rate_of_guard} | _guarded(guard, clean, right, attacked)]
    setting = Setting(tuned, train[:PREPARED], trusted, SEED)
    for name, kind in FILTERS.items():
        prepared = kind.prepare(setting)
        known = prepared.look([example.text for example in train[PREPARED : PREPARED + CALIBRATION]])
        seen = prepared.look([example.text for example in clean])
        fired = [prepared.look(texts) for texts in attacked]
        for rate in RATES:
            at = threshold_for(known, rate)
            rows.append(unguarded | {"filter": name, "rate": rate} | filtered(tuned, clean, seen, right, fired, at))
    return rows


def _triggered(examples: Sequence[Example], trigger: Trigger) -> list[str]:
    rng = random.Random(f"{SEED} {trigger} filters")
    return [trigger.plant(example.text, rng) for example in examples]


def _guarded(
    guard: Guard, clean: Sequence[Example], right: Sequence[Example], attacked: Sequence[Sequence[str]]
) -> dict[str, Any]:
    kept = guard([example.text for example in clean])
    wrong = [
        [one.label not in (None, guard.labels[example.label]) for one, example in zip(guard(texts), right, strict=True)]
        for texts in attacked
    ]
    hits = sum(one.label == guard.labels[example.label] for one, example in zip(kept, clean, strict=True))
    return {
        "cacc": hits / len(clean),
        "touched": sum(one.flagged for one in kept) / len(clean),
        "asr": any_of(wrong),
        "asr_mean": mean_of(wrong),
    }


def filtered(
    tuned: TunedModel,
    clean: Sequence[Example],
    seen: Sequence[Look],
    right: Sequence[Example],
    fired: Sequence[Sequence[Look]],
    threshold: float,
) -> dict[str, Any]:
    """What a filter does at one threshold. A rejected text has no label: no success of the attack, and none of the
    classifier.

    Args:
        seen: looks at the clean examples.
        fired: looks at `right` under each trigger.
    """
    fates = [_fates(tuned, right, looks, threshold) for looks in fired]
    counted = success(fates)
    return {
        "cacc": sum(fate == "right" for fate in _fates(tuned, clean, seen, threshold)) / len(clean),
        "touched": sum(look.score > threshold for look in seen) / len(clean),
        "asr": counted["asr"],
        "asr_mean": counted["asr_mean"],
    }


def _fates(tuned: TunedModel, examples: Sequence[Example], looks: Sequence[Look], threshold: float) -> list[Fate]:
    rests = [look.rest(threshold) for look in looks]
    labels = iter(labels_of(tuned, [rest for rest in rests if rest is not None]))
    fates: list[Fate] = []
    for example, look, rest in zip(examples, looks, rests, strict=True):
        if rest is None:
            fates.append("refused")
        elif next(labels) == example.label:
            fates.append("right")
        else:
            fates.append("misled" if look.score > threshold else "missed")
    return fates
