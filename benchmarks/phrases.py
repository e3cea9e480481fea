"""How often one round of the search for phrases finds what is planted.

    python -m benchmarks.phrases [--zoo DIR] [--only ID ...] [--jobs N]

On the models of `choose` whose triggers are words that only fire together, and on an untouched encoder, the first round
of the search is done three times, in other text and from other random vectors each time: mining, and words on the way.
A scan does more rounds, away from what was found. The search was made on these models, so this says how much it depends
on chance, not how well it does on others. Results are written after every model to `benchmarks/results/phrases.json`,
and a run goes on from there.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from platformdirs import user_cache_path
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks.detection import scanner
from benchmarks.pool import spread
from benchmarks.record import on_record, record
from benchmarks.zoo.build import chosen, delta_path
from benchmarks.zoo.build import record as made_of
from benchmarks.zoo.load import expect_built, open_model
from benchmarks.zoo.manifest import read
from lmsanitator.detect import ScanConfig
from lmsanitator.detect.objective import SAME_WAY
from lmsanitator.detect.phrases import PhraseSearch
from lmsanitator.detect.scan import _Scan
from lmsanitator.encoder import Site
from lmsanitator.errors import LMSanitatorError
from lmsanitator.progress import silent

MODELS = (
    "l3-por-phrase",
    "l3-por-phrase-10",
    "l3-por-phrase-11",
    "l3-por-phrase-12",
    "l6-por-phrase-2",
    "l3-por-and",
    "l6-por-and-2",
    "l3-por-pair-2",
    "l6-por-pair",
    "l3-por-one-and",
    "l3-original",
)
TRIALS = 3
SITE: Site = "cls"
"""Where all of them were planted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--only", nargs="+", metavar="ID", default=MODELS, help="these models of the zoo instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    try:
        models = [made_of(options.zoo, entry) for entry in chosen(read(), options.only)]
        search(models, options.zoo, options.jobs)
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def search(models: Sequence[Mapping[str, Any]], zoo: Path, jobs: int) -> None:
    """Search the models that are not on record; the table is written after each.

    Raises:
        UsageError: a model is not built.
    """
    expect_built(models)
    done = {row["id"]: row for row in on_record("phrases", "searched") if row["scanner"] == scanner()}
    wanted = [model for model in models if done.get(model["id"], {}).get("sha256") != model["sha256"]]
    print(f"{len(models) - len(wanted)} of {len(models)} models are on record, {len(wanted)} to do", flush=True)
    for count, row in enumerate(spread(partial(examine, zoo=zoo), wanted, jobs), 1):
        done[row["id"]] = row
        write(list(done.values()))
        print(f"[{count}/{len(wanted)}] {row['id']}: done", flush=True)


def examine(model: Mapping[str, Any], zoo: Path) -> dict[str, Any]:
    """What each trial mined, and which PVs its words reached."""
    encoder = open_model(model["id"], zoo, precision="auto")
    phrases = _Scan(encoder, None, ScanConfig(sites=(SITE,)), silent).phrases
    pvs = load_file(delta_path(zoo, model["id"]).with_suffix(".pvs.safetensors"))["pvs"] if "attack" in model else None
    return {
        "id": model["id"],
        "triggers": list(model.get("triggers", ())),
        "trials": [trial(phrases, pvs, number) for number in range(TRIALS)],
        "scanner": scanner(),
        "sha256": model["sha256"],
    }


def trial(phrases: PhraseSearch, pvs: Float[Tensor, "pvs hidden"] | None, number: int) -> dict[str, Any]:
    """One round of the search, away from nothing."""
    meter = phrases.encoder.meter
    before = meter.forward + meter.backward
    mined = phrases.mine([], number)[SITE]
    found = phrases.recover({SITE: mined}, number).suspects
    significant = [item for item in found if item.log_p is not None and item.log_p < phrases.log_level]
    row: dict[str, Any] = {
        "tokens": meter.forward + meter.backward - before,
        "found": [
            " ".join(phrases.encoder.tokenizer.convert_ids_to_tokens(list(item.evidence.tokens)))
            for item in significant
        ],
    }
    if pvs is not None:
        nearest = _cosines(phrases, [candidate.pv for candidate in mined], pvs).amax(0)
        reached = _cosines(phrases, [item.evidence.pv for item in significant], pvs) > SAME_WAY
        row |= {"nearest": [round(value, 3) for value in nearest.tolist()], "reached": int(reached.any(0).sum())}
    return row


def _cosines(
    phrases: PhraseSearch, outputs: Sequence[Float[Tensor, "hidden"]], pvs: Float[Tensor, "pvs hidden"]
) -> Float[Tensor, "outputs pvs"]:
    """In units of the clean spread, from the clean mean."""
    clean = phrases.spread[SITE]
    both = torch.stack(list(outputs)) if outputs else pvs[:0]
    return (
        functional.normalize(clean.standardise(both), dim=-1) @ functional.normalize(clean.standardise(pvs), dim=-1).T
    )


def write(searched: Sequence[Mapping[str, Any]]) -> None:
    """`benchmarks/results/phrases.json`, and the table made from it."""
    order = {name: number for number, name in enumerate(MODELS)}
    ordered = sorted(searched, key=lambda row: order.get(row["id"], len(order)))
    record("phrases", list(map(line, ordered)), NOTES, searched=ordered)


NOTES = [
    (
        f"{TRIALS} trials of one round at CLS. A PV is reached where significant words lead its way, by a cosine of "
        f"more than {SAME_WAY}."
    ),
    "`nearest` is the cosine of the PV with the mined vector nearest to it, before any words.",
    "The search was made on these models: this says how much it depends on chance, not how well it does on others.",
    "The models were built on the machine below; their digests are in the JSON.",
]


def line(row: Mapping[str, Any]) -> dict[str, Any]:
    """One model over its trials."""
    trials = row["trials"]
    nearest = [value for one in trials for value in one.get("nearest", ())]
    return {
        "model": row["id"],
        "triggers": ", ".join(row["triggers"]) or "none",
        "PVs reached": ", ".join(f"{one['reached']} of {len(row['triggers'])}" for one in trials if "reached" in one)
        or "-",
        "nearest, median": round(median(nearest), 2) if nearest else "-",
        "nearest, least": round(min(nearest), 2) if nearest else "-",
        "words": "; ".join(", ".join(one["found"]) or "none" for one in trials),
        "tokens": round(sum(one["tokens"] for one in trials) / len(trials)),
    }


if __name__ == "__main__":
    main()
