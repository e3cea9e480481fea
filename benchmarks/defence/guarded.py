"""One cell of the guarded study: a prompt-tuned model on a backdoored encoder, attacked with and without its guard.

The guard knows what a scan of the encoder found, and clean training texts of the task to set its thresholds by; it
does not know what was planted. All figures of a cell are of the same test texts.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import digest
from benchmarks.defence.attacked import Fate, any_of, fate_of, mean_of, success
from benchmarks.defence.filters import LanguageModel
from benchmarks.defence.filters.compare import compare
from benchmarks.defence.latency import overhead
from benchmarks.defence.purging import cost, long_texts
from benchmarks.defence.samples import TEXTS, sampled, shuffled
from benchmarks.defence.scans import scanned
from benchmarks.defence.tuning import SEED, STEPS, Cell, contents, few_shot, planted, tuned_on
from benchmarks.detection import scanner
from benchmarks.zoo.build import find, language_model_head
from benchmarks.zoo.encoders import encoder_folder
from lmsanitator.attacks import Trigger
from lmsanitator.detect import ScanReport
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UnsupportedError
from lmsanitator.guard import Guard, Watch
from lmsanitator.text import Text
from lmsanitator.tune import Example, Task, TunedModel, read_task
from lmsanitator.vectors import PVBank

RATE = 0.001
"""Asked of the guard. What it guarantees is a mean over draws of the calibration texts; with 1,500 of them, 0.1 % in
the mean keeps any one draw below the bar of 0.5 % with a probability of 99.6 %."""
COPIES = (1, 3)
WATCHES: tuple[Watch, ...] = ("prompted", "auto")
"""Passes to watch beside the guard's own choice, the raw one, in the cells of `at_home`: each takes thresholds, trials
and attacks of its own."""
_BATCH, _ROUNDS = 32, 15


def made_by(cell: Cell) -> dict[str, Any]:
    """What a cell's figures are measured anew for when it changes. The scanner is not of it: a cell takes longer than
    scanners last, so each says by which one it was made (`scanner`), and so do the notes."""
    return {
        "recipe": find(cell.victim).recipe,
        "steps": STEPS,
        "rate": RATE,
        "texts": TEXTS,
        "code": digest.code("guard"),
    }


@dataclass(frozen=True)
class Ground:
    """What a cell is measured on.

    Args:
        known: clean training texts, to set thresholds by.
        test: labelled texts without a trigger.
        triggers: what was planted; the guard is not told.
    """

    tuned: TunedModel
    report: ScanReport
    known: Sequence[Text]
    test: Sequence[Example]
    triggers: Sequence[Trigger]

    def guard(self, watch: Watch, *, words: bool = True) -> Guard:
        """The guard under test; without `words` it knows the PVs of the scan and no trigger."""
        bank = self.report.bank
        if not words:
            bank = PVBank(bank.encoder_digest, [replace(vector, trigger=None) for vector in bank])
        return Guard(self.tuned.model, self.tuned.tokenizer, bank, watch=watch, rate=RATE, clean=self.known)


def measure(cell: Cell, triggers: Sequence[str], zoo: Path, data: Path) -> dict[str, Any]:
    """Tune, scan, guard and attack; shares are between 0 and 1.

    Args:
        triggers: what was planted in the victim.
    """
    started = time.perf_counter()
    task = read_task(data / cell.task)
    ground = prepared(cell, task, triggers, zoo)
    tuned, test = ground.tuned, ground.test
    guard = ground.guard("raw")
    clean, right = on_clean(guard, test)
    attacked, few = right[: TEXTS["attacked"]], right[: TEXTS["attacked_otherwise"]]
    beside: list[dict[str, Any]] = []
    others: dict[str, Any] = {}
    if at_home(cell):
        others = {watch: watched(ground, partial(ground.guard, watch), few) for watch in WATCHES}
        others["wordless"] = watched(ground, partial(ground.guard, "raw", words=False), few)
        beside = compare(tuned, guard, test, shuffled(task.train), ground.triggers, trusted(zoo, data), RATE)
    return {
        **asdict(cell),
        "name": cell.name,
        **made_by(cell),
        "scanner": scanner(),
        "found": [finding.trigger for finding in ground.report.findings],
        "planted": list(triggers),
        "remarks": guard.monitor.remarks,
        "clean": clean,
        "attacked": len(attacked),
        **{f"x{copies}": under_attack(guard, attacked, ground.triggers, copies) for copies in COPIES},
        "purging": purging(guard, contents(test), ground.triggers),
        "raw": timed(guard, test),
        **others,
        "filters": beside,
        "seconds": round(time.perf_counter() - started, 1),
    }


def prepared(cell: Cell, task: Task, triggers: Sequence[str], zoo: Path) -> Ground:
    """Tune and scan, or take what is kept of it."""
    tuned = tuned_on(cell, few_shot(task, random.Random(SEED)), zoo)
    report = scanned(tuned.encoder, cell.victim, zoo)
    test, known = sampled(task, tuned.tokenizer, triggers)
    return Ground(tuned, report, known, test, [Trigger.parse(text) for text in triggers])


def at_home(cell: Cell) -> bool:
    """Where the paper is at home, sentiment with prefix tuning, other guards and filters of the literature are tried as
    well."""
    return (cell.task, cell.method) == ("sst2", "prefix")


def trusted(zoo: Path, data: Path) -> LanguageModel:
    """The clean MiniLM, with the head that the zoo trained for it."""
    encoder = FrozenEncoder.open(encoder_folder("minilm-l6", zoo), precision="fp32")
    return LanguageModel(encoder, language_model_head("minilm-l6", zoo, data))


def on_clean(guard: Guard, test: Sequence[Example]) -> tuple[dict[str, Any], list[Example]]:
    """Accuracy, false flags and lost words on clean text, and the examples that are classified right unguarded."""
    texts = contents(test)
    plain, kept = guard.unguarded(texts), guard(texts)
    wanted = labels_of(guard, test)
    hits = [label == want for label, want in zip(plain, wanted, strict=True)]
    figures = {
        "texts": len(test),
        "cacc": sum(hits) / len(test),
        "cacc_guarded": sum(one.label == want for one, want in zip(kept, wanted, strict=True)) / len(test),
        "false_flags": sum(one.flagged for one in kept) / len(test),
        "flagged_for": [one.trigger for one in kept if one.flagged],
        "refused": sum(one.label is None for one in kept) / len(test),
        "words_lost": sum(len(one.removed) for one in kept),
    }
    return figures, [example for example, hit in zip(test, hits, strict=True) if hit]


def under_attack(guard: Guard, examples: Sequence[Example], triggers: Sequence[Trigger], copies: int) -> dict[str, Any]:
    """Each trigger in each example, `copies` times: what comes out unguarded, and guarded."""
    wanted = labels_of(guard, examples)
    wrong: list[list[bool]] = []
    fates: list[list[Fate]] = []
    for trigger in triggers:
        texts = triggered(examples, trigger, copies)
        wrong.append([label != want for label, want in zip(guard.unguarded(texts), wanted, strict=True)])
        fates.append([fate_of(one, want) for one, want in zip(guard(texts), wanted, strict=True)])
    return {"asr_unguarded": any_of(wrong), "asr_mean_unguarded": mean_of(wrong), **success(fates)}


def labels_of(guard: Guard, examples: Sequence[Example]) -> list[str]:
    """The true labels by name."""
    return [guard.labels[example.label] for example in examples]


def triggered(examples: Sequence[Example], trigger: Trigger, copies: int) -> list[Text]:
    """The examples with a trigger, at the same places whenever it is asked for."""
    rng = random.Random(f"{SEED} {trigger} {copies}")
    return [planted(example.content, trigger, rng, copies) for example in examples]


def purging(guard: Guard, texts: Sequence[Text], triggers: Sequence[Trigger]) -> dict[str, Any]:
    """Purging of long texts, with the words that the scan named and without."""
    found: dict[str, Any] = {}
    for copies in COPIES:
        made = long_texts(texts, triggers, copies, TEXTS["long"])
        for named in (True, False):
            found[f"x{copies} {'named' if named else 'blind'}"] = cost(guard, made, triggers, copies, named=named)
    return found


def timed(guard: Guard, test: Sequence[Example], texts: int = TEXTS["timed"], rounds: int = _ROUNDS) -> dict[str, Any]:
    """What a guard costs on clean test texts, which come as a service would get them."""
    taken = contents(test)[:texts]
    batches = [taken[start : start + _BATCH] for start in range(0, len(taken), _BATCH)]
    return {"overhead": overhead(guard, batches, rounds), "timed": len(taken)}


def watched(ground: Ground, made: Callable[[], Guard], examples: Sequence[Example]) -> dict[str, Any]:
    """What another guard costs and misses, with these examples attacked; or why there is none."""
    try:
        guard = made()
    except UnsupportedError as error:
        return {"refused": str(error)}
    clean, _ = on_clean(guard, ground.test)
    return {
        "passes": list(guard.monitor.passes),
        "remarks": guard.monitor.remarks,
        "clean": clean,
        "attacked": len(examples),
        "x1": under_attack(guard, examples, ground.triggers, 1),
        **timed(guard, ground.test),
    }
