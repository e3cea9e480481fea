"""Named entity recognition on a backdoored encoder, with and without the guard.

    python -m benchmarks.ner --data DIR [--zoo DIR] [--victim l6-por-tokens] [--tasks conll04 ...]

The encoder is scanned, each task is prefix-tuned on it, and each test sentence is attacked with one of the planted
triggers at a random place between words. The guard knows what the scan found, and its thresholds are set by the
training sentences. Results are written after every task to `benchmarks/results/ner.json`; a run goes on from there.
"""

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from benchmarks import digest
from benchmarks.defence.samples import holds
from benchmarks.record import on_record, record
from benchmarks.zoo.build import find
from benchmarks.zoo.load import open_model
from benchmarks.zoo.manifest import Backdoored
from lmsanitator.attacks import Trigger
from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.errors import LMSanitatorError, UsageError
from lmsanitator.guard import GuardedTags, TaggingGuard
from lmsanitator.memory import keep_freed_memory
from lmsanitator.tune import OUTSIDE, Tagged, Tagging, TuneConfig, entity_f1, read_tagging, tune

TASKS = ("conll04", "wnut17")
STEPS, SENTENCES, VALIDATION = 400, 400, 128
RATE = 0.002
"""Asked of the guard: hardly less can be shown with the fewest training sentences, 922 of CoNLL04, some of which hold a
trigger. What it guarantees is a mean over draws of them; so small a rate keeps most draws below the bar of 0.5 %."""
_SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each task")
    parser.add_argument("--victim", default="l6-por-tokens", help="a backdoored model of the zoo")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    options = parser.parse_args()
    keep_freed_memory()
    try:
        study(options.victim, options.tasks, options.zoo, options.data)
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def study(victim: str, tasks: Sequence[str], zoo: Path, data: Path) -> None:
    """Measure the tasks that are not on record as they are now; the table is written after each."""
    entry = find(victim)
    if not isinstance(entry, Backdoored):
        raise UsageError(f"expected a backdoored model, {victim} is clean")
    setup = {
        "victim": victim,
        "recipe": entry.recipe,
        "steps": STEPS,
        "sentences": SENTENCES,
        "rate": RATE,
        "code": digest.code("guard"),
    }
    before = on_record("ner", "cells")
    measured = {cell["task"]: cell for cell in before if all(cell.get(name) == setup[name] for name in setup)}
    missing = [task for task in tasks if task not in measured]
    print(f"{len(tasks) - len(missing)} of {len(tasks)} tasks are there, {len(missing)} to measure", flush=True)
    report = scan(open_model(victim, zoo), ScanConfig(seed=_SEED)) if missing else None
    for name in missing:
        if report is not None:
            found = measure(victim, name, entry.triggers, report, zoo, data)
            measured[name] = setup | {"verdict": str(report.verdict), "vectors": len(report.bank)} | found
            write([measured[name] for name in TASKS if name in measured])
            print({key: value for key, value in measured[name].items() if key.startswith("f1")}, flush=True)


def measure(
    victim: str, name: str, triggers: Sequence[str], report: ScanReport, zoo: Path, data: Path
) -> dict[str, Any]:
    """Tune one task and attack it. Test sentences that hold the tokens of a trigger by themselves (`Tupelo` begins with
    the word piece `tu`) are left out: in them the backdoor fires, they are not clean.

    Returns:
        entity F1 on clean and on attacked sentences, unguarded and guarded (a sentence that gets no labels counts as
        one in which no entity was found); shares of sentences: `false_flags` among the clean ones; among the attacked
        ones `missed` was not flagged, `refused` got no labels, `exact` lost the trigger and nothing else.
    """
    started = time.perf_counter()
    task = read_tagging(data / name)
    rng = random.Random(_SEED)
    encoder = open_model(victim, zoo)
    inert = [sentence for sentence in task.test if not holds(" ".join(sentence.words), encoder.tokenizer, triggers)]
    test = rng.sample(inert, min(SENTENCES, len(inert)))
    few = Tagging(task.labels, task.train, tuple(rng.sample(task.validation, VALIDATION)), tuple(test))
    tuned = tune(encoder, few, TuneConfig(epochs=64, max_steps=STEPS, max_length=256, seed=_SEED))
    known = [sentence.words for sentence in task.train]
    guard = TaggingGuard(tuned.model, tuned.tokenizer, report, rate=RATE, clean=known)
    planted = [_plant(sentence, Trigger.parse(triggers[at % len(triggers)]), rng) for at, sentence in enumerate(test)]
    attacked = [sentence for sentence, _ in planted]
    clean_answers = guard([sentence.words for sentence in test])
    answers = guard([sentence.words for sentence in attacked])
    wanted, wanted_attacked = ([task.names(one) for one in sentences] for sentences in (test, attacked))
    exact = [answer.removed == places for answer, (_, places) in zip(answers, planted, strict=True)]
    return {
        "task": name,
        "f1_clean": entity_f1(wanted, guard.unguarded([sentence.words for sentence in test])),
        "f1_clean_guarded": entity_f1(wanted, [_labels(answer) for answer in clean_answers]),
        "f1_attacked": entity_f1(wanted_attacked, guard.unguarded([sentence.words for sentence in attacked])),
        "f1_attacked_guarded": entity_f1(wanted_attacked, [_labels(answer) for answer in answers]),
        "false_flags": sum(answer.flagged for answer in clean_answers) / len(test),
        "missed": sum(not answer.flagged for answer in answers) / len(test),
        "refused": sum(answer.labels is None for answer in answers) / len(test),
        "exact": sum(exact) / len(test),
        "tested": len(test),
        "left_out": len(task.test) - len(inert),
        "watched": len(guard.monitor.kept),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _plant(sentence: Tagged, trigger: Trigger, rng: random.Random) -> tuple[Tagged, tuple[int, ...]]:
    """A sentence with the words of a trigger, all labelled O, at one random place, and where they stand."""
    place, outside = rng.randint(0, len(sentence.words)), 0
    words, tags = list(sentence.words), list(sentence.tags)
    words[place:place] = trigger.words
    tags[place:place] = [outside] * len(trigger.words)
    return Tagged(tuple(words), tuple(tags)), tuple(range(place, place + len(trigger.words)))


def _labels(answer: GuardedTags) -> Sequence[str]:
    return answer.labels if answer.labels is not None else [OUTSIDE] * len(answer.words)


def write(cells: Sequence[Mapping[str, Any]], *, anew: bool = True) -> None:
    """The table: one line a task."""
    rows = [
        {
            "victim": cell["victim"],
            "task": cell["task"],
            "F1 clean %": 100 * cell["f1_clean"],
            "guarded F1 clean %": 100 * cell["f1_clean_guarded"],
            "F1 attacked %": 100 * cell["f1_attacked"],
            "guarded F1 attacked %": 100 * cell["f1_attacked_guarded"],
            "false flags %": 100 * cell["false_flags"],
            "missed %": 100 * cell["missed"],
            "refused %": 100 * cell["refused"],
            "trigger alone removed %": 100 * cell["exact"],
            "s": round(cell["seconds"]),
        }
        for cell in cells
    ]
    close = sum(cell["f1_clean"] - cell["f1_attacked_guarded"] <= 0.02 for cell in cells)
    notes = (
        f"Guarded F1 under attack is at most 2 points below the clean, unguarded F1 in {close} of {len(cells)} tasks.",
        f"Prefix tuning, {STEPS} steps of 16 sentences; one trigger in each test sentence, of which there are "
        + ", ".join(f"{cell['tested']} of {cell['task']}" for cell in cells)
        + ".",
        "The trigger stands at a random place between words and is labelled O; inside an entity it splits it in two.",
        "The guard has the PVs of a scan of the same encoder; the training sentences set its thresholds.",
        f"Asked of the guard: {100 * RATE:g} % false flags. Tasks that have no more: {_asked(cells)} of {len(cells)}.",
        "Left out of the test sentences because they hold the tokens of a trigger by themselves: "
        + ", ".join(f"{cell['left_out']} of {cell['task']}" for cell in cells)
        + ".",
        "Entity F1 as the CoNLL-2003 script counts; a sentence without labels counts as one without entities.",
    )
    record("ner", rows, notes, anew=anew, cells=cells)


def _asked(cells: Sequence[Mapping[str, Any]]) -> int:
    """How many tasks have no more false flags than were asked for."""
    return sum(cell["false_flags"] <= RATE for cell in cells)


if __name__ == "__main__":
    main()
