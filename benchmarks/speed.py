"""Seconds, tokens through the encoder and peak memory of whole scans, beside the paper's own mining settings.

    python -m benchmarks.speed [MODEL] [--zoo DIR] [--mpnet] [--steps N]

Scanned at standard effort, at all sites: MiniLM-L6 as it is, and with a backdoor that is easy to find where the zoo has
one; with --mpnet the same of MPNet-base. MODEL is a checkpoint to scan instead. Every scan, opening included, has a
process to itself, so that its peak memory is its own; the stages of a scan add up to it.

The paper's mining (LMSanitator, section IV-B, with the settings of its published code: 7 soft tokens, 2,000 lines
padded to 128 tokens, batches of 32) is timed in the same run over a few steps on the first model, and multiplied out;
those rows say so. It is timed in fp32, as the published code runs it, and in the precision of the scan, so that what
the scan gains by its precision can be told from what it gains by its method. Both run on this package's encoder, with
frozen weights. The clean references are computed once for all seeds and left out, as is a first step to warm up.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import torch
from platformdirs import user_cache_path

from benchmarks.baselines.pv_mining import Lines, PVMining
from benchmarks.record import peak_memory, record
from benchmarks.zoo.build import delta_path
from benchmarks.zoo.deltas import materialise
from benchmarks.zoo.encoders import encoder_folder
from lmsanitator.cli.demo.base_model import minilm
from lmsanitator.detect import ScanConfig, scan
from lmsanitator.encoder import FrozenEncoder, Precision
from lmsanitator.memory import keep_freed_memory
from lmsanitator.text import packaged

DROPPED_AFTER = 2
"""Epochs without a hit that the paper gives a seed; a clean verdict is all its seeds dropped."""
EASY = {"minilm-l6": "l6-por-rare", "mpnet-base": "mpnet-por"}
"""A model of the zoo with one-word triggers and PVs, for each encoder."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
"""What the paper's settings are timed in: as published, and as a scan computes on this machine."""
Given = ParamSpec("Given")
Row = dict[str, Any]


class Case(NamedTuple):
    """A checkpoint to scan, and what the table calls it."""

    name: str
    folder: str | Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a checkpoint to scan instead")
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--mpnet", action="store_true", help="scan MPNet-base too")
    parser.add_argument("--steps", type=int, default=3, help="steps of the paper's mining to time")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        encoders = ["minilm-l6", *(["mpnet-base"] if options.mpnet else [])]
        cases, left_out = cases_of(options.model, encoders, options.zoo, Path(scratch))
        for case in cases:
            rows += alone(scanned, case, ScanConfig())
            show(rows[-1])
        for precision in PRECISIONS:
            rows += alone(papers, cases[0], PVMining.paper(), options.steps, precision)
    published, alike = ratios(rows)
    notes = [
        f"The paper's settings, for a clean verdict, beside the whole scan of {cases[0].name}:",
        f"{published['seconds']:.0f} times its seconds as published, in {published['precision']},",
        f"{alike['seconds']:.0f} times in the precision of the scan, {alike['precision']},",
        f"{published['tokens']:.0f} times its tokens. Those include padding to 128, which its code computes too.",
        "A clean verdict is all of the paper's seeds dropped; a backdoored one ends at a hit, and is not timed.",
        *left_out,
        "Tokens count forward and backward passes alike.",
        "Peak memory is of the whole process, Python and torch too; for a stage, up to its end.",
    ]
    record("speed" if not options.model else f"speed_{cases[0].name}", rows, notes, ratio=published, ratio_alike=alike)
    for row in rows[-6:]:
        show(row)
    print(*notes[:4])


def cases_of(model: str | None, encoders: Sequence[str], zoo: Path, scratch: Path) -> tuple[list[Case], list[str]]:
    """The model given; without one the clean encoders, and their easy backdoored models as ordinary checkpoints. What
    the zoo lacks is said."""
    if model is not None:
        return [Case(Path(model).name, model)], []
    cases, left_out = [], []
    for encoder in encoders:
        folder = minilm() if encoder == "minilm-l6" else encoder_folder(encoder, zoo)
        cases.append(Case(f"{encoder}, clean", folder))
        name = EASY[encoder]
        if delta_path(zoo, name).exists():
            materialise(folder, delta_path(zoo, name), scratch / name)
            cases.append(Case(f"{name}, backdoored", scratch / name))
        else:
            left_out.append(f"{name}, an easy backdoored model, is left out: it is not in the zoo.")
    return cases, left_out


def alone(work: Callable[Given, list[Row]], *args: Given.args, **more: Given.kwargs) -> list[Row]:
    """What `work` returns in a process that does nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=keep_freed_memory) as pool:
        return pool.submit(work, *args, **more).result()


class StageClock:
    """Listens to a scan's progress and books seconds and tokens to its stages, with the peak memory up to their end.

    A message about the start of a stage ends the one before; one about work done says whose the time up to it was.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder = encoder
        self.stages: dict[str, tuple[float, int, float]] = {}
        self._stage = "preparing"
        self._since = self._now()

    def __call__(self, what: str, done: float) -> None:
        stage = what.split(" at ")[0]  # the sites of a stage are added up
        self.book(stage if done else self._stage)
        self._stage = stage

    def book(self, stage: str | None = None) -> None:
        """Give what has passed since the last message to a stage; to the one under way where none is named."""
        stage, now = stage or self._stage, self._now()
        seconds, tokens, _ = self.stages.get(stage, (0.0, 0, 0.0))
        self.stages[stage] = (seconds + now[0] - self._since[0], tokens + now[1] - self._since[1], peak_memory())
        self._since = now

    def _now(self) -> tuple[float, int]:
        return time.perf_counter(), self.encoder.meter.forward + self.encoder.meter.backward


def scanned(case: Case, config: ScanConfig) -> list[Row]:
    """The stages of a scan, and the whole of it with the verdict."""
    started = time.perf_counter()
    encoder = FrozenEncoder.open(case.folder, precision=config.precision, device=config.device)
    opened = (time.perf_counter() - started, 0, peak_memory())
    clock = StageClock(encoder)
    report = scan(encoder, config, progress=clock)
    clock.book()
    whole = time.perf_counter() - started
    stages = {"opening": opened, **clock.stages}
    tokens = report.cost.forward_tokens + report.cost.backward_tokens
    sites = ", ".join(report.coverage.sites)
    rows = [
        *(_row(case.name, name, *took) for name, took in stages.items()),
        _row(case.name, f"whole scan, {config.effort}: {sites}", whole, tokens, peak_memory())
        | {"verdict": report.verdict},
    ]
    return [row | {"precision": encoder.precision} for row in rows]


def papers(case: Case, paper: PVMining, steps: int, precision: Precision) -> list[Row]:
    """A few steps of the paper's mining, and what an epoch and a clean verdict would take of them."""
    encoder = FrozenEncoder.open(case.folder, precision=precision)
    texts = [carrier.text for carrier in packaged("en")]
    lines = paper.prepare(encoder, texts[: paper.batch * steps])
    paper_steps(encoder, paper, lines, 1)
    clock = StageClock(encoder)
    paper_steps(encoder, paper, lines, steps)
    clock.book()
    ((seconds, tokens, peak),) = clock.stages.values()
    epoch = paper.lines / paper.batch / steps
    verdict = epoch * paper.seeds * DROPPED_AFTER
    timed = _row(case.name, f"paper's mining, {steps} steps", seconds, tokens, peak)
    scaled = {
        "paper's mining, one epoch (multiplied out)": epoch,
        f"paper's mining, clean verdict of {paper.seeds} seeds (multiplied out)": verdict,
    }
    further = [_row(case.name, what, seconds * factor, tokens * factor) for what, factor in scaled.items()]
    return [row | {"precision": encoder.precision} for row in (timed, *further)]


def paper_steps(encoder: FrozenEncoder, mining: PVMining, lines: Lines, steps: int) -> None:
    """So many optimiser steps of PV mining with the published settings."""
    for _ in islice(mining.steps(encoder, lines, torch.empty(0, encoder.hidden_size), seed=0), steps):
        pass


def ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How many times what the first scan took a clean verdict by the paper's settings would take, in each precision."""
    ours = next(row for row in rows if row["what"].startswith("whole scan"))
    verdicts = [row for row in rows if "clean verdict" in row["what"]]
    return [
        {name: round(row[name] / ours[name], 1) for name in ("seconds", "tokens")} | {"precision": row["precision"]}
        for row in verdicts
    ]


def _row(model: str, what: str, seconds: float, tokens: float, peak: float | None = None) -> Row:
    """A line of the table; only a whole scan has a verdict, and what is multiplied out has no memory."""
    measured = {"seconds": round(seconds, 2), "tokens": round(tokens)}
    return {"model": model, "what": what, "verdict": "-", **measured, "peak MiB": "-" if peak is None else round(peak)}


def show(row: Row) -> None:
    """One line on the terminal."""
    name, peak = f"{row['model']}: {row['what']}", row["peak MiB"]
    print(
        f"{name:84}{row['seconds']:12,.1f} s {row['tokens']:14,} tokens {peak!s:>6} MiB  {row['verdict']}", flush=True
    )


if __name__ == "__main__":
    main()
