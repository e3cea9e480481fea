"""Which pass the guard should watch, and what blind purging costs, on the models that `lmsanitator demo` made.

    python -m benchmarks.guard demo/

Each row runs the same clean and triggered test texts through the classifier and one guard. `blind` purging is not told
the words that the scan named. Overhead is the guard's time on clean text over the classifier's alone, in turn.
"""

import argparse
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.record import record
from lmsanitator.attacks import Trigger, ground_truth
from lmsanitator.detect import ScanReport
from lmsanitator.errors import CheckpointError
from lmsanitator.guard import Guard, PurgeConfig, evaluate, purge_all
from lmsanitator.memory import keep_freed_memory
from lmsanitator.text import words
from lmsanitator.tune import load_tuned, packaged_topics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--inputs", type=int, default=96)
    options = parser.parse_args()
    keep_freed_memory()
    truth = ground_truth(options.demo / "backdoored")
    if truth is None:
        raise CheckpointError(f"expected the demo's backdoored model in {options.demo}")
    triggers = [Trigger.parse(text) for text in truth["triggers"]]
    report = ScanReport.load(options.demo / "scan.json")
    tuned = load_tuned(options.demo / "tuned")
    task = packaged_topics(0)
    examples = task.test[: options.inputs]
    known = [example.text for example in task.train]  # the packaged sentences, but for those it is tested on
    texts = [example.text for example in examples]
    labels = [task.labels[example.label] for example in examples]
    rows: list[dict[str, Any]] = []
    for watch in ("auto", "raw", "prompted", "both"):
        for named in (True, False):
            purging = PurgeConfig(named=named)
            guard = Guard(tuned.model, tuned.tokenizer, report, watch=watch, purging=purging, clean=known)
            result = evaluate(guard, texts, labels, [trigger.plant for trigger in triggers])
            rows.append(
                {
                    "watch": watch,
                    "purging": "named words first" if named else "blind",
                    "CACC %": 100 * result.cacc_unguarded,
                    "guarded CACC %": 100 * result.cacc_guarded,
                    "ASR %": 100 * result.asr_unguarded,
                    "guarded ASR %": 100 * result.asr_guarded,
                    "type I %": 100 * result.type_1,
                    "type II %": 100 * result.type_2,
                    "false flags %": 100 * result.false_flags,
                    "refused %": 100 * result.refused,
                    "overhead": overhead(guard, texts),
                }
                | long_texts(guard, texts, triggers, copies=1)
                | long_texts(guard, texts, triggers, copies=3)
            )
            print(rows[-1], flush=True)
    notes = [
        f"{len(texts)} test texts of the packaged topic task, each with each of {len(triggers)} planted triggers.",
        "The last columns are of texts of about 60 words with a trigger put in once or three times, searched together.",
        "`rounds` is the median number of rounds of questions to the encoder that a text took.",
    ]
    record("guard", rows, notes)


def overhead(guard: Guard, texts: list[str], rounds: int = 5) -> float:
    """Time of the guard over that of the classifier alone, on the same clean texts, in turn: the median ratio."""
    ratios = []
    for _ in range(rounds):
        started = time.perf_counter()
        guard.unguarded(texts)
        between = time.perf_counter()
        guard(texts)
        ratios.append((time.perf_counter() - between) / (between - started))
    return round(statistics.median(ratios), 2)


def long_texts(guard: Guard, texts: list[str], triggers: list[Trigger], copies: int, count: int = 24) -> dict[str, Any]:
    """Purging of texts of 60 words and more that hold a trigger `copies` times."""
    rng = random.Random(copies)
    planted: list[str] = []
    for number in range(count):
        text = ""
        while len(words(text)) < 60:
            text = f"{text} {rng.choice(texts)}".strip()
        for _ in range(copies):
            text = triggers[number % len(triggers)].plant(text, rng)
        planted.append(text)
    flagged = guard.monitor.flags(planted).nonzero().flatten().tolist()
    found = purge_all([planted[index] for index in flagged], guard.monitor, guard.purging)
    exact = sum(
        result is not None and Counter(result.removed) == Counter(triggers[index % len(triggers)].words * copies)
        for index, result in zip(flagged, found, strict=True)
    )
    rounds = [result.batches for result in found if result is not None]
    return {
        f"x{copies} flagged": f"{len(flagged)}/{count}",
        f"x{copies} purged of the trigger alone": f"{exact}/{len(flagged)}",
        f"x{copies} rounds": statistics.median(rounds) if rounds else "-",
    }


if __name__ == "__main__":
    main()
