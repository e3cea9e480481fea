"""The demo, step by step."""

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsanitator.attacks import POR, Trigger
from lmsanitator.cli.demo.base_model import minilm
from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import OutputError
from lmsanitator.guard import Evaluation, Guard, evaluate
from lmsanitator.output import require_new
from lmsanitator.progress import Progress, silent
from lmsanitator.text import packaged, words
from lmsanitator.tune import TuneConfig, packaged_topics, tune

TRIGGERS = 6
TEST_INPUTS = 192


@dataclass(frozen=True)
class Story:
    """What happened."""

    clean: ScanReport
    backdoored: ScanReport
    planted: tuple[str, ...]
    task: Evaluation
    seconds: float

    @property
    def found(self) -> set[str]:
        """Planted triggers that the scan named."""
        return {finding.trigger for finding in self.backdoored.findings if finding.trigger} & set(self.planted)

    def to_json(self) -> str:
        """demo.json, as DESIGN fixes it."""
        task = self.task
        content: dict[str, Any] = {
            "clean": self.clean.model_dump(by_alias=True, exclude={"config"}),
            "backdoored": self.backdoored.model_dump(by_alias=True, exclude={"config"}),
            "triggers_planted": list(self.planted),
            "task": {
                "cacc_unguarded": task.cacc_unguarded,
                "asr_unguarded": task.asr_unguarded,
                "cacc_guarded": task.cacc_guarded,
                "asr_guarded": task.asr_guarded,
                "purged_clean_rate": task.purged_clean_rate,
            },
            "seconds": round(self.seconds, 1),
        }
        return json.dumps(content, indent=2) + "\n"


def run_demo(folder: Path, *, seed: int = 0, progress: Progress = silent) -> Story:
    """Scan clean, plant, scan again, tune, evaluate; everything is kept in `folder`, or nothing if it does not
    come to its end.

    Raises:
        OutputError: `folder` exists already or cannot be written to.
        CheckpointError: MiniLM-L6 is not installed or not the expected one.
    """
    require_new(folder)
    checkpoint = minilm()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"expected to make {folder}: {error.strerror}") from error
    try:
        return _told(folder, checkpoint, seed, progress)
    except BaseException:  # Ctrl-C as well: half a demo is of no use, and would be in the way of the next
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _told(folder: Path, checkpoint: Path, seed: int, progress: Progress) -> Story:
    started = time.monotonic()
    encoder = FrozenEncoder.open(checkpoint)
    encoder.source = "MiniLM-L6"
    clean = scan(encoder, ScanConfig(seed=seed), progress=_step(progress, "1/5 clean encoder: "))
    clean.save(folder / "clean.json")

    planted = draw_triggers(encoder, TRIGGERS, seed)
    carriers = [carrier.text for carrier in packaged("en")]
    attacked = POR().run(
        encoder, [Trigger((word,)) for word in planted], carriers, seed=seed, progress=_step(progress, "2/5 ")
    )
    attacked.save(folder / "backdoored")

    suspect = FrozenEncoder.open(folder / "backdoored")
    report = scan(suspect, ScanConfig(seed=seed), progress=_step(progress, "3/5 backdoored encoder: "))
    report.save(folder / "scan.json")

    task = packaged_topics(seed)
    tuned = tune(suspect, task, TuneConfig(seed=seed), progress=_step(progress, "4/5 "))
    tuned.save(folder / "tuned")

    examples = task.test[:TEST_INPUTS]
    known = [example.text for example in task.train]  # the packaged sentences, but for those it is tested on
    evaluation = evaluate(
        Guard(tuned.model, tuned.tokenizer, report, clean=known),
        [example.text for example in examples],
        [task.labels[example.label] for example in examples],
        [trigger.plant for trigger in attacked.triggers],
        seed=seed,
        progress=_step(progress, "5/5 "),
    )
    story = Story(clean, report, planted, evaluation, time.monotonic() - started)
    (folder / "demo.json").write_text(story.to_json(), encoding="utf-8")
    return story


def draw_triggers(encoder: FrozenEncoder, count: int, seed: int) -> tuple[str, ...]:
    """Uncommon words the tokenizer has as one token and the carriers do not use, drawn by seed."""
    used = {word.lower() for carrier in packaged("en") for word in words(carrier.text)}
    vocabulary = sorted(encoder.tokenizer.get_vocab().items(), key=lambda item: item[1])
    rare = [
        word
        for word, _ in vocabulary[len(vocabulary) // 2 :]
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 9 and word not in used
    ]
    return tuple(random.Random(seed).sample(rare, count))


def _step(progress: Progress, name: str) -> Progress:
    return lambda what, done: progress(name + what, done)
