"""CACC and ASR with and without the guard, counted as the paper does (LMSanitator, section V-A)."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmsanitator.errors import CorpusError
from lmsanitator.guard.guard import Guard, GuardedPrediction
from lmsanitator.progress import Progress, silent
from lmsanitator.text import Text, sides, spans

Plant = Callable[[str, random.Random], str]
"""Puts a trigger into a text at a random place."""


@dataclass(frozen=True)
class Evaluation:
    """Shares between 0 and 1.

    ASR is over inputs classified right without a trigger; one counts as attacked if any of the triggers makes its
    label wrong. Under guard a text that gets no label is no success of the attack; how often that happens is `refused`.
    """

    cacc_unguarded: float
    cacc_guarded: float
    asr_unguarded: float
    asr_guarded: float
    type_1: float
    """Part of `asr_guarded`: the monitor missed."""
    type_2: float
    """Part of `asr_guarded`: purged, and still wrong."""
    false_flags: float
    """Clean inputs that were flagged."""
    refused: float
    """Triggered inputs that got no label."""
    purged_clean_rate: float
    """Flagged triggered inputs whose flag cleared and whose label came out right."""
    inputs: int
    attacked_inputs: int


def evaluate(
    guard: Guard,
    texts: Sequence[Text],
    labels: Sequence[str],
    triggers: Sequence[Plant],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Run clean and triggered inputs through the classifier and through the guard. Of a pair, one of the two texts gets
    the trigger, at random. Triggers are put where the classifier reads, not behind that.

    Raises:
        CorpusError: there is nothing to evaluate on.
    """
    if not texts:
        raise CorpusError("expected texts to evaluate on, got none")
    rng = random.Random(seed)
    progress("evaluating clean text", 0)
    plain, guarded = guard.unguarded(texts), guard(texts)
    right = [index for index, label in enumerate(labels) if plain[index] == label]
    flips: set[int] = set()
    missed: set[int] = set()
    misled: set[int] = set()
    answered: list[tuple[GuardedPrediction, bool]] = []
    for number, plant in enumerate(triggers):
        progress("evaluating triggered text", number / len(triggers))
        planted = [_planted(guard, plant, texts[index], rng) for index in right]
        for index, label, prediction in zip(right, guard.unguarded(planted), guard(planted), strict=True):
            correct = prediction.label == labels[index]
            answered.append((prediction, correct))
            if label != labels[index]:
                flips.add(index)
            if prediction.label is not None and not correct:
                (misled if prediction.flagged else missed).add(index)
    base = max(1, len(right))
    flagged = [correct for prediction, correct in answered if prediction.flagged]
    return Evaluation(
        cacc_unguarded=len(right) / len(texts),
        cacc_guarded=sum(one.label == label for one, label in zip(guarded, labels, strict=True)) / len(texts),
        asr_unguarded=len(flips) / base,
        asr_guarded=len(missed | misled) / base,
        type_1=len(missed) / base,
        type_2=len(misled) / base,
        false_flags=sum(one.flagged for one in guarded) / len(texts),
        refused=sum(one.label is None for one, _ in answered) / max(1, len(answered)),
        purged_clean_rate=sum(flagged) / max(1, len(flagged)),
        inputs=len(texts),
        attacked_inputs=len(answered),
    )


def _planted(guard: Guard, plant: Plant, text: Text, rng: random.Random) -> Text:
    """A text with a trigger in it, or a pair with one in either text: where it is read, or it would do nothing."""
    trigger = plant("", random.Random(0))
    parts = list(sides(text))
    side = 0 if len(parts) == 1 or rng.random() < 0.5 else 1
    read = guard.classifier.reach(text, trigger)[side]
    end = max((span.end for span in spans(parts[side]) if span.end <= read), default=0)
    head, rest = plant(parts[side][:end], rng), parts[side][end:]
    parts[side] = f"{head} {rest}" if rest and not rest[0].isspace() else head + rest
    return parts[0] if isinstance(text, str) else (parts[0], parts[1])
