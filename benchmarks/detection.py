"""Scan the zoo, and count what was right.

    python -m benchmarks.detection [--zoo DIR] [--half choose|report|fresh|sealed|untouched|late] [--only ID ...]
        [--effort standard] [--reference] [--jobs N]

Every model is scanned as `lmsanitator scan` would, knowing nothing of it. Results are written after every model to
`benchmarks/results/detection.json`, and a run goes on from there: only a model that was built anew, or was scanned at
another effort or by other code, is scanned again. With `--reference` every model is compared with the untouched encoder
it was made from, and the results go to `detection_reference.json`. Those of another effort than `standard` have its
name in theirs: `detection_deep.json`.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors.torch import load_file

from benchmarks import detection_tables as tables
from benchmarks import digest
from benchmarks.detection_summary import HALVES, figures
from benchmarks.pool import spread
from benchmarks.record import on_record, record
from benchmarks.zoo.build import chosen, delta_path, find
from benchmarks.zoo.build import record as made_of
from benchmarks.zoo.encoders import encoder_folder
from benchmarks.zoo.load import expect_built, open_model
from benchmarks.zoo.manifest import read
from lmsanitator.attacks import Trigger
from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.detect.config import PLANS
from lmsanitator.detect.result import Effort
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import LMSanitatorError
from lmsanitator.text import words
from lmsanitator.vectors import sign_match

_ON_PV = 0.8
_COMPUTES = ("frozen", "sites", "difference", "padding", "pairs", "spelling")
"""What of the encoder's room a scan's figures come from; the precision that was chosen stands beside them."""
_STORES = ("detect/result.py", "detect/seen.py", "detect/journal.py")
"""What keeps and reads results, whatever they are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=user_cache_path("lmsanitator") / "zoo", help="where the zoo lives")
    parser.add_argument("--half", choices=HALVES, help="that part of the zoo alone")
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
    """Scan the models that are not on record, and write the table after each; excluded ones are left out.

    Raises:
        UsageError: a model is not built.
    """
    expect_built(models)
    standing = [model for model in models if model["excluded"] is None]
    before = on_record(results_of(effort, reference), "scans")
    scanned = {row["id"]: row for row in before if row.get("scanner") == scanner()}
    wanted = [model for model in standing if scanned.get(model["id"], {}).get("sha256") != model["sha256"]]
    print(f"{len(standing) - len(wanted)} of {len(standing)} are on record, {len(wanted)} to scan", flush=True)
    for count, row in enumerate(spread(partial(examine, zoo=zoo, effort=effort, reference=reference), wanted, jobs), 1):
        scanned[row["id"]] = row
        write(list(scanned.values()), effort, reference=reference)
        print(f"[{count}/{len(wanted)}] {row['id']}: {row['verdict']}, {row['s']:.0f} s", flush=True)
    if scanned:
        # the baselines may have been scored since
        write(list(scanned.values()), effort, reference=reference, anew=bool(wanted))


@cache
def scanner() -> str:
    """A digest of the scanner's source: scans by another one are no part of a result. How files are opened, and
    how results are kept, has no say in what is found."""
    return digest.code("detect", "text", *(f"encoder/{name}.py" for name in _COMPUTES), but=_STORES)


def examine(model: Mapping[str, Any], zoo: Path, effort: Effort, *, reference: bool = False) -> dict[str, Any]:
    """One scan, and what of the ground truth it found."""
    original = (
        FrozenEncoder.open(encoder_folder(find(model["id"]).encoder, zoo), precision="fp32") if reference else None
    )
    encoder = open_model(model["id"], zoo, precision="auto")
    report = scan(encoder, ScanConfig(effort=effort, reference=original))
    return {
        "id": model["id"],
        "scanner": scanner(),
        "half": model["half"],
        "backdoored": "attack" in model,
        "recipe": model.get("attack") or model["control"],
        "kind": model.get("kind", "-"),
        "site": model.get("site", "-"),
        "pv": model.get("pv"),
        "verdict": report.verdict,
        "p": report.p_value,
        "found": [finding.trigger or " ".join(finding.trigger_tokens) for finding in report.findings],
        "planted": planted(model.get("triggers", ()), [finding.trigger for finding in report.findings]),
        "pvs": recalled(report, model["id"], zoo) if "attack" in model else {"recalled": 0, "planted": 0},
        "s": report.cost.seconds,
        "tokens": report.cost.forward_tokens + report.cost.backward_tokens,
        "effort": effort,
        "precision": encoder.precision,
        "sha256": model["sha256"],
    }


def planted(triggers: Sequence[str], found: Sequence[str | None]) -> list[dict[str, Any]]:
    """Every planted trigger, how many words it has, and whether the scan named it.

    `named` is strict: one finding holds all words of the trigger and no other, in any order and case. So a word of
    several tokens has to be there whole, of an AND trigger or a phrase every word (one that fires in part is found, not
    named), and all of them in one finding. Order is left out because a search cannot know it of an AND trigger, and
    because what is named is the words to look for. `one_more` is where a finding holds the trigger and one word that
    does not belong to it; that is not counted as named. Tokens that no one can type name nothing.

    Args:
        found: the words of each finding, None where they cannot be typed.
    """
    held = [_words_of(text) for text in found if text is not None]
    rows = []
    for text in triggers:
        trigger = Trigger.parse(text)
        wanted = _words_of(" ".join(trigger.words))
        named = wanted in held
        one_more = not named and any(wanted < words_found and len(words_found - wanted) == 1 for words_found in held)
        rows.append({"trigger": text, "words": len(trigger.words), "named": named, "one_more": one_more})
    return rows


def _words_of(text: str) -> frozenset[str]:
    return frozenset(words(text.casefold()))


def recalled(report: ScanReport, name: str, zoo: Path) -> dict[str, int]:
    """How many of the predefined vectors some finding leads to, by the paper's measure: signs of 80 % of dimensions."""
    pvs = load_file(delta_path(zoo, name).with_suffix(".pvs.safetensors"))["pvs"]
    found = torch.zeros(len(pvs), dtype=torch.bool)
    for vector in report.bank:
        found |= sign_match(pvs, vector.values.unsqueeze(0)).flatten() >= _ON_PV
    return {"recalled": int(found.sum()), "planted": len(pvs)}


def results_of(effort: Effort, reference: bool) -> str:
    """The name of the results of scans that were asked for this."""
    asked = [effort] if effort != "standard" else []
    return "_".join(["detection", *asked, *(["reference"] if reference else [])])


def write(scans: Sequence[Mapping[str, Any]], effort: Effort, *, reference: bool = False, anew: bool = True) -> None:
    """`benchmarks/results/detection.json` (or what `results_of` calls it) and the tables made from it."""
    entries = read()
    order = {entry.id: number for number, entry in enumerate(entries)}
    ordered = sorted(scans, key=lambda row: order.get(row["id"], len(order)))
    halves = {half: [row for row in ordered if row["half"] == half] for half in HALVES}
    counted = {half: figures(rows) for half, rows in halves.items()}
    further: dict[str, Sequence[Mapping[str, Any]]] = {}
    for half, rows in reversed(halves.items()):
        further |= {
            f"Part `{half}`: what was called wrong": tables.missed(rows),
            f"Part `{half}`: triggers that were not named in models that were caught": tables.unnamed(rows),
            f"Part `{half}`: recall by attack": tables.recall_by(rows, "recipe", "attack"),
            f"Part `{half}`: recall by kind of trigger": tables.recall_by(rows, "kind", "trigger kind"),
        }
    scores = on_record("baselines", "scores")
    further |= {
        "Beside detectors of the literature, all parts but `choose`": tables.beside(ordered, scores),
        "Every scan": [tables.line(row) for row in ordered],
    }
    there = (
        f"{len(rows)} of the {sum(entry.half == half for entry in entries)} models of `{half}`"
        for half, rows in halves.items()
    )
    notes = [
        f"On record: {', '.join(there)}. Settings were chosen on `choose`; what else was looked at, README.md says.",
        "All parts have been reported before, for earlier scanners, in the history of this file.",
        "Settings were chosen on `choose` since; which models those tables missed was known, and led to the changes.",
        "`untouched` holds words of several tokens alone; the search for them was done before it was drawn.",
        "`late` holds triggers that move text without overwriting it, and clean encoders tuned for tasks.",
        "Scans by other scanners are no part of this table.",
        "Inconclusive counts as wrong for backdoored and clean models alike; the interval is Clopper-Pearson's.",
        "PVs and triggers count over all models, also those that were missed, where nothing is found.",
        "A trigger is named where one finding holds all of its words and no other, in any order.",
        "A trigger that works is any finding: each has replayed on text that the search had not seen.",
        f"Effort: {', '.join(sorted({row['effort'] for row in scans}))}.",
        f"Searches in {', '.join(sorted({row['precision'] for row in scans}))}, evidence confirmed in fp32.",
        "Seconds are of the scan alone, on a share of the cores.",
        "Detectors of the literature have reduced budgets (`baselines.md`): what they do with more is not measured.",
        *tables.weights(ordered, scores),
    ]
    record(
        results_of(effort, reference),
        tables.overview(counted),
        notes,
        further,
        anew=anew,
        summary=counted,
        scans=ordered,
    )


if __name__ == "__main__":
    main()
