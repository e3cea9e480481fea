"""Score the zoo with the baselines, and count what was right.

    python -m benchmarks.baselines.run [--zoo DIR] [--half choose|report|fresh|sealed|untouched|late]
        [--only ID ...] [--names NAME ...] [--data DIR] [--jobs N]

Every baseline looks at every model, knowing nothing of it. Results are written after every model to
`benchmarks/results/baselines.json`, and a run goes on from there: only a model that was built anew, or a baseline
whose settings changed, is scored again. Label inversion trains its classifier on `sst2` of the data folder; without
one, on the packaged topics.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from benchmarks.baselines import BASELINES, Baseline, LabelInversion, summary
from benchmarks.detection_summary import HALVES
from benchmarks.pool import spread
from benchmarks.record import on_record, record
from benchmarks.zoo.build import chosen
from benchmarks.zoo.build import record as made_of
from benchmarks.zoo.load import expect_built, open_model
from benchmarks.zoo.manifest import read
from lmsanitator.errors import LMSanitatorError, UsageError
from lmsanitator.text import packaged

_TASK = "sst2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--half", choices=HALVES, help="that half alone")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these models alone")
    parser.add_argument("--names", nargs="+", choices=tuple(BASELINES), default=tuple(BASELINES))
    parser.add_argument("--data", type=Path, help=f"folder with {_TASK}, the task of label inversion")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    try:
        entries = [entry for entry in chosen(read(), options.only) if options.half in (None, entry.half)]
        models = [made_of(options.zoo, entry) for entry in entries]
        compare(models, options.zoo, with_data(options.names, options.data), options.jobs)
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def with_data(names: Sequence[str], data: Path | None) -> dict[str, Baseline]:
    """The baselines of these names, label inversion on the task of the data folder."""
    picked = {name: BASELINES[name] for name in names}
    return {
        name: replace(baseline, data=data / _TASK) if data and isinstance(baseline, LabelInversion) else baseline
        for name, baseline in picked.items()
    }


def compare(models: Sequence[Mapping[str, Any]], zoo: Path, baselines: Mapping[str, Baseline], jobs: int) -> None:
    """Score what is not on record as it is now, and write the table after each model; excluded ones are left out.

    Raises:
        UsageError: a model is not built.
    """
    expect_built(models)
    scores = {(row["id"], row["baseline"]): row for row in on_record("baselines", "scores")}
    wanted = []
    for model in models:
        lacking = {
            name: baseline
            for name, baseline in baselines.items()
            if not _same(scores.get((model["id"], name)), model, baseline)
        }
        if model["excluded"] is None and lacking:
            wanted.append((model, lacking))
    print(f"{len(wanted)} of {len(models)} models to score", flush=True)
    for count, rows in enumerate(spread(partial(examine, zoo=zoo), wanted, jobs), 1):
        scores |= {(row["id"], row["baseline"]): row for row in rows}
        write(list(scores.values()))
        found = ", ".join(f"{row['baseline']} {row['score']:.3g} ({row['seconds']:.0f} s)" for row in rows)
        print(f"[{count}/{len(wanted)}] {rows[0]['id']}: {found}", flush=True)
    if scores and not wanted:
        write(list(scores.values()), anew=False)  # what is said of the scores may have changed since


def examine(work: tuple[Mapping[str, Any], Mapping[str, Baseline]], zoo: Path) -> list[dict[str, Any]]:
    """Every baseline's look at one model, with what it took."""
    model, baselines = work
    encoder, texts = open_model(model["id"], zoo), [carrier.text for carrier in packaged("en")]
    rows = []
    for name, baseline in baselines.items():
        before, started = encoder.meter.forward + encoder.meter.backward, time.perf_counter()
        score = baseline.score(encoder, texts)
        rows.append(
            {
                "id": model["id"],
                "half": model["half"],
                "backdoored": "attack" in model,
                "recipe": model.get("attack") or model["control"],
                "kind": model.get("kind", "-"),
                "baseline": name,
                "score": score.value,
                "details": dict(score.details),
                "seconds": round(time.perf_counter() - started, 2),
                "tokens": encoder.meter.forward + encoder.meter.backward - before,
                "settings": settings(baseline),
                "sha256": model["sha256"],
            }
        )
    return rows


def settings(baseline: Baseline) -> dict[str, Any]:
    """The hyperparameters, as a result file may hold them: of a folder, its name."""
    if not is_dataclass(baseline):
        raise UsageError(f"expected a baseline with its settings as fields, got {type(baseline).__name__}")
    return {name: value.name if isinstance(value, Path) else value for name, value in asdict(baseline).items()}


def _same(row: Mapping[str, Any] | None, model: Mapping[str, Any], baseline: Baseline) -> bool:
    return row is not None and (row["sha256"], row["settings"]) == (model["sha256"], settings(baseline))


def write(scores: Sequence[Mapping[str, Any]], *, anew: bool = True) -> None:
    """`benchmarks/results/baselines.json`, and the table made from it."""
    models, names = {entry.id: number for number, entry in enumerate(read())}, list(BASELINES)
    ordered = sorted(
        (row for row in scores if row["baseline"] in names),
        key=lambda row: (names.index(row["baseline"]), models.get(row["id"], len(models))),
    )
    notes = [
        "`AUC`: the chance that a backdoored model scores higher than a clean one.",
        "`accuracy report`, `caught`, `accused`: on all parts but `choose`, at the best threshold of `choose`.",
        "Accuracy is balanced: the mean of the shares of backdoored models called so and of clean ones not called so.",
        "`s` and `tokens` are the mean of a model; tokens count forward and backward passes alike.",
        "Seconds are of whatever share of the cores there was.",
        "All look at CLS alone: a backdoor at another site shows there as far as it shows at all.",
        "Budgets are reduced (see `benchmarks/baselines/`, each file says from what); nothing was tuned on `report`.",
    ]
    record("baselines", summary.table(ordered), notes, anew=anew, scores=ordered)


if __name__ == "__main__":
    main()
