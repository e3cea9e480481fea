"""Scan the zoo, and count what was right.

    python -m benchmarks.detection [--zoo DIR] [--half choose|report] [--only ID ...] [--effort standard] [--reference]
        [--jobs N]

Every model is scanned as `lmsanitator scan` would, knowing nothing of it. Results are written after every model to
`benchmarks/results/detection.json`, and a run goes on from there: only a model that was built anew, or is to be scanned
at another effort, is scanned again. With `--reference` every model is compared with the untouched encoder it was made
from, and the results go to `detection_reference.json`.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from safetensors.torch import load_file
from scipy import stats

from benchmarks.pool import spread
from benchmarks.record import RESULTS, record
from benchmarks.zoo.build import chosen, delta_path, find
from benchmarks.zoo.build import record as made_of
from benchmarks.zoo.encoders import encoder_folder
from benchmarks.zoo.load import open_model
from benchmarks.zoo.manifest import read
from lmsanitator.attacks import Trigger
from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.detect.config import PLANS
from lmsanitator.detect.result import Effort
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import LMSanitatorError, UsageError
from lmsanitator.text import words
from lmsanitator.vectors import sign_match

_ON_PV = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--half", choices=("choose", "report"), help="that half alone")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these models alone")
    parser.add_argument("--effort", choices=tuple(PLANS), default="standard")
    parser.add_argument("--reference", action="store_true", help="compare each with the encoder it was made from")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    try:
        entries = [entry for entry in chosen(read(), options.only) if options.half in (None, entry.half)]
        detect(
            [made_of(options.zoo, entry) for entry in entries],
            options.zoo,
            options.effort,
            options.jobs,
            reference=options.reference,
        )
    except LMSanitatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def detect(
    models: Sequence[Mapping[str, Any]], zoo: Path, effort: Effort, jobs: int, *, reference: bool = False
) -> None:
    """Scan the models that are not on record, and write the table after each; excluded ones are left out."""
    missing = next((model["id"] for model in models if "recipe" not in model), None)
    if missing is not None:
        raise UsageError(f"expected the whole zoo, {missing} is not built: python -m benchmarks.zoo.build")
    standing = [model for model in models if model["excluded"] is None]
    scanned = {row["id"]: row for row in on_record(reference=reference)}
    wanted = [model for model in standing if not _same(scanned.get(model["id"]), model, effort)]
    print(f"{len(standing) - len(wanted)} of {len(standing)} are on record, {len(wanted)} to scan", flush=True)
    for count, row in enumerate(spread(partial(examine, zoo=zoo, effort=effort, reference=reference), wanted, jobs), 1):
        scanned[row["id"]] = row
        write(list(scanned.values()), reference=reference)
        print(f"[{count}/{len(wanted)}] {row['id']}: {row['verdict']}, {row['named']}, {row['s']:.0f} s", flush=True)


def _same(row: Mapping[str, Any] | None, model: Mapping[str, Any], effort: str) -> bool:
    return row is not None and (row["sha256"], row["effort"]) == (model["sha256"], effort)


def examine(model: Mapping[str, Any], zoo: Path, effort: Effort, *, reference: bool = False) -> dict[str, Any]:
    """One scan, and what of the ground truth it found."""
    original = (
        FrozenEncoder.open(encoder_folder(find(model["id"]).encoder, zoo), precision="fp32") if reference else None
    )
    report = scan(open_model(model["id"], zoo), ScanConfig(effort=effort, reference=original))
    planted = [Trigger.parse(text) for text in model.get("triggers", ())]
    found = [frozenset(words(finding.trigger.casefold())) for finding in report.findings if finding.trigger]
    named = sum(frozenset(part for word in trigger.words for part in words(word)) in found for trigger in planted)
    return {
        "id": model["id"],
        "half": model["half"],
        "backdoored": "attack" in model,
        "recipe": model.get("attack") or model["control"],
        "kind": model.get("kind", "-"),
        "verdict": report.verdict,
        "p": report.p_value,
        "found": [finding.trigger or " ".join(finding.trigger_tokens) for finding in report.findings],
        "named": f"{named} of {len(planted)}",
        "pvs": recalled(report, model["id"], zoo) if "attack" in model else "-",
        "s": report.cost.seconds,
        "tokens": report.cost.forward_tokens + report.cost.backward_tokens,
        "effort": effort,
        "sha256": model["sha256"],
    }


def recalled(report: ScanReport, name: str, zoo: Path) -> str:
    """How many of the predefined vectors some finding leads to, by the paper's measure: signs of 80 % of dimensions."""
    pvs = load_file(delta_path(zoo, name).with_suffix(".pvs.safetensors"))["pvs"]
    if not len(pvs):
        return "-"
    matches = [sign_match(pvs, vector.values.unsqueeze(0)).flatten() >= _ON_PV for vector in report.bank]
    return f"{sum(any(bool(match[index]) for match in matches) for index in range(len(pvs)))} of {len(pvs)}"


def _results(reference: bool) -> str:
    return "detection_reference" if reference else "detection"


def on_record(*, reference: bool = False) -> list[dict[str, Any]]:
    """The models scanned so far."""
    path = RESULTS / f"{_results(reference)}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["scans"] if path.exists() else []
    return rows


def write(scans: Sequence[Mapping[str, Any]], *, reference: bool = False) -> None:
    """The table, and what it adds up to, for each half."""
    order = {entry.id: number for number, entry in enumerate(read())}
    ordered = sorted(scans, key=lambda row: order.get(row["id"], len(order)))
    shown = [{name: row[name] for name in row if name not in ("sha256", "effort")} for row in ordered]
    rows = [row | {"found": ", ".join(row["found"]) or "-"} for row in shown]
    notes = [line for half in ("choose", "report") for line in summary([row for row in ordered if row["half"] == half])]
    record(_results(reference), rows, [*notes, "`s` is the scan alone, on a share of the cores."], scans=ordered)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Recall and false positives of one half, the latter with their 95 % Clopper-Pearson interval."""
    if not rows:
        return []
    bad = [row for row in rows if row["backdoored"]]
    clean = [row for row in rows if not row["backdoored"]]
    caught = sum(row["verdict"] == "backdoored" for row in bad)
    accused = sum(row["verdict"] == "backdoored" for row in clean)
    doubtful = sum(row["verdict"] == "inconclusive" for row in rows)
    top = float(stats.beta.ppf(0.975, accused + 1, len(clean) - accused)) if accused < len(clean) else 1.0
    low = float(stats.beta.ppf(0.025, accused, len(clean) - accused + 1)) if accused else 0.0
    return [
        f"{rows[0]['half']}: {caught} of {len(bad)} backdoored models are called so.",
        f"{rows[0]['half']}: {accused} of {len(clean)} clean ones are accused (95 % interval {low:.1%} to {top:.1%}).",
        f"{rows[0]['half']}: {doubtful} are inconclusive.",
    ]


if __name__ == "__main__":
    main()
