"""Does a verdict depend on the seed, and is it the same when the scan is done again?

    python -m benchmarks.stability [--zoo DIR] [--only ID ...] [--effort standard] [--jobs N]

Five backdoored and five clean models of the zoo's `report` half are scanned with five seeds each, and with the first
seed once more. Results are written after every scan to `benchmarks/results/stability.json`, and a run goes on from
there: only a model that was built anew, or was scanned at another effort or by other code, is scanned again.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_cache_path

from benchmarks.detection import scanner
from benchmarks.pool import spread
from benchmarks.record import on_record, record
from benchmarks.zoo.build import chosen
from benchmarks.zoo.build import record as made_of
from benchmarks.zoo.load import expect_built, open_model
from benchmarks.zoo.manifest import read
from lmsanitator.detect import ScanConfig, scan
from lmsanitator.detect.config import PLANS
from lmsanitator.detect.result import Effort
from lmsanitator.errors import LMSanitatorError

MODELS = (
    "l6-por-rare",
    "l6-btop-and",
    "l3-neuba-cls",
    "l3-por-pieces",
    "l3-transtroj",
    "l6-original",
    "l6-finetune-ag_news",
    "l6-simcse",
    "l3-weight-noise",
    "l3-lora-trec",
)
"""Each of another attack or kind of trigger, or another control, on both small encoders; picked by manifest alone."""
SEEDS = (0, 1, 2, 3, 4)


class Piece(NamedTuple):
    """One scan: `again` is the second with the same seed."""

    model: Mapping[str, Any]
    seed: int
    again: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--only", nargs="+", metavar="ID", default=MODELS, help="these models of the zoo instead")
    parser.add_argument("--effort", choices=tuple(PLANS), default="standard")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    try:
        models = [made_of(options.zoo, entry) for entry in chosen(read(), options.only)]
        repeat(models, options.zoo, options.effort, options.jobs)
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def repeat(models: Sequence[Mapping[str, Any]], zoo: Path, effort: Effort, jobs: int) -> None:
    """Do the scans of these models that are not on record; the table is written after each.

    Raises:
        UsageError: a model is not built.
    """
    expect_built(models)
    before = on_record("stability", "scans")
    done = {_key(row): row for row in before if (row["scanner"], row["effort"]) == (scanner(), effort)}
    asked = [(seed, again) for seed, again in [*((seed, False) for seed in SEEDS), (SEEDS[0], True)]]
    pieces = [Piece(model, seed, again) for model in models for seed, again in asked]
    wanted = [piece for piece in pieces if done.get(_key_of(piece), {}).get("sha256") != piece.model["sha256"]]
    print(f"{len(pieces) - len(wanted)} of {len(pieces)} scans are on record, {len(wanted)} to do", flush=True)
    for count, row in enumerate(spread(partial(examine, zoo=zoo, effort=effort), wanted, jobs), 1):
        done[_key(row)] = row
        write(list(done.values()))
        print(
            f"[{count}/{len(wanted)}] {row['id']}, seed {row['seed']}: {row['verdict']}, {row['s']:.0f} s", flush=True
        )


def examine(piece: Piece, zoo: Path, effort: Effort) -> dict[str, Any]:
    """What one scan said; findings are kept as they are, to be compared to the last digit."""
    model = piece.model
    report = scan(open_model(model["id"], zoo, precision="auto"), ScanConfig(effort=effort, seed=piece.seed))
    return {
        "id": model["id"],
        "backdoored": "attack" in model,
        "seed": piece.seed,
        "again": piece.again,
        "verdict": report.verdict,
        "p": report.p_value,
        "findings": [finding.model_dump(mode="json") for finding in report.findings],
        "s": report.cost.seconds,
        "tokens": report.cost.forward_tokens + report.cost.backward_tokens,
        "effort": effort,
        "scanner": scanner(),
        "sha256": model["sha256"],
    }


def _key(row: Mapping[str, Any]) -> tuple[str, int, bool]:
    return row["id"], row["seed"], row["again"]


def _key_of(piece: Piece) -> tuple[str, int, bool]:
    return piece.model["id"], piece.seed, piece.again


def write(scans: Sequence[Mapping[str, Any]]) -> None:
    """`benchmarks/results/stability.json`, and the table made from it."""
    order = {entry.id: number for number, entry in enumerate(read())}
    ordered = sorted(scans, key=lambda row: (order.get(row["id"], len(order)), row["seed"], row["again"]))
    names = dict.fromkeys(row["id"] for row in ordered)
    rows = [line([row for row in ordered if row["id"] == name]) for name in names]
    record("stability", rows, notes(rows), scans=ordered)


def line(scans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One model: its verdicts over the seeds, and whether the repeated scan said the very same."""
    over = [row for row in scans if not row["again"]]
    again = next((row for row in scans if row["again"]), None)
    once = next((row for row in over if again and row["seed"] == again["seed"]), None)
    verdicts = [row["verdict"] for row in over]
    twice: dict[str, bool | str] = {
        name: "-" if once is None or again is None else all(once[part] == again[part] for part in parts)
        for name, parts in (("verdict again", ("verdict",)), ("report again", ("verdict", "p", "findings")))
    }
    return {
        "model": scans[0]["id"],
        "is": "backdoored" if scans[0]["backdoored"] else "clean",
        "seeds": len(over),
        "verdicts": ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts)) or "-",
        "one verdict": len(set(verdicts)) == 1,
        "p from": min((row["p"] for row in over), default="-"),
        "to": max((row["p"] for row in over), default="-"),
        **twice,
    }


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the lines come to; a model without all of its seeds does not count as steady."""
    whole = [row for row in rows if row["seeds"] == len(SEEDS)]
    steady = [
        f"{sum(row['one verdict'] for row in whole if row['is'] == kind)} of {sum(row['is'] == kind for row in rows)} "
        f"{kind} models"
        for kind in ("backdoored", "clean")
    ]
    repeated = [row for row in rows if row["verdict again"] != "-"]
    verdict, report = (sum(row[name] is True for row in repeated) for name in ("verdict again", "report again"))
    return [
        f"The same verdict over {len(SEEDS)} seeds: {' and '.join(steady)}.",
        f"One seed twice: the same verdict on {verdict} of {len(repeated)} models.",
        f"One seed twice: p-value and findings the same to the last digit on {report} of {len(repeated)} models.",
        "`p from` and `to` are the smallest and the largest over the seeds.",
    ]


if __name__ == "__main__":
    main()
