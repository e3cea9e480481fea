"""The tables of the detection benchmark, made from its rows and from what they add up to."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.baselines import summary as baselines
from benchmarks.detection_summary import (
    LENGTHS,
    PV_ATTACKS,
    Row,
    named_of,
    pvs_of,
    right,
    scan_score,
    working_of,
)


def overview(halves: Mapping[str, Row]) -> list[dict[str, str]]:
    """One line a figure, one column a half."""
    lines: dict[str, dict[str, str]] = {}
    for half, counted in halves.items():
        low, high = counted["accused_95"]
        cells = {
            "accuracy, all models": shown(counted["right"]),
            "backdoored models called so": shown(counted["called"]),
            "clean models accused": shown(counted["accused"]),
            "clean models accused, 95 % interval": f"{low:.1%} to {high:.1%}" if counted["accused"][1] else "-",
            "inconclusive, of all models": shown(counted["inconclusive"]),
            "PVs recalled, POR, NeuBA and BToP": shown(counted["pvs"]["together"]),
            **{f"PVs recalled, {name}": shown(counted["pvs"][name]) for name in PV_ATTACKS},
            **{f"triggers of {name} named": shown(counted["named"][name]) for name in LENGTHS},
            **{f"triggers of {name} found with one more": shown(counted["one_more"][name]) for name in LENGTHS},
            "backdoored models with a trigger that works": shown(counted["working"]),
            "seconds, mean and most": " and ".join(f"{value:.1f}" for value in counted["seconds"]) or "-",
            "tokens, mean and most": " and ".join(f"{value:,.0f}" for value in counted["tokens"]) or "-",
        }
        for name, cell in cells.items():
            lines.setdefault(name, {"figure": name})[half] = cell
    return list(lines.values())


def recall_by(rows: Sequence[Row], column: str, heading: str) -> list[dict[str, Any]]:
    """Recall for each value of a column (`recipe`: the attack, `kind`: of its triggers), in the order of the rows."""
    bad = [row for row in rows if row["backdoored"]]
    groups = {name: [row for row in bad if row[column] == name] for name in dict.fromkeys(row[column] for row in bad)}
    return [
        {
            heading: name,
            "called backdoored": shown([sum(map(right, group)), len(group)]),
            "inconclusive": sum(row["verdict"] == "inconclusive" for row in group),
            "PVs recalled": shown(pvs_of(group)),
            "triggers named": shown(named_of([trigger for row in group for trigger in row["planted"]])),
            "a trigger that works": shown(working_of(group)),
        }
        for name, group in groups.items()
    ]


def missed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The models that were called wrong, in plain words."""
    return [
        {"model": row["id"], "what it is": _described(row), "called": row["verdict"], "p": row["p"]}
        for row in rows
        if not right(row)
    ]


def unnamed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Triggers that were not named, of models that were called backdoored, beside what was found there."""
    return [
        {
            "model": row["id"],
            "kind": row["kind"],
            "not named": _listed(trigger for trigger in row["planted"] if not trigger["named"]),
            "found": ", ".join(row["found"]),
        }
        for row in rows
        if row["backdoored"] and right(row) and not all(trigger["named"] for trigger in row["planted"])
    ]


def line(row: Row) -> dict[str, Any]:
    """One scan in the table of all."""
    return {
        "model": row["id"],
        "half": row["half"],
        "recipe": row["recipe"],
        "triggers": row["kind"],
        "verdict": row["verdict"],
        "p": row["p"],
        "found": ", ".join(row["found"]) or "-",
        "named": _counted(named_of(row["planted"])),
        "PVs": _counted(pvs_of([row])),
        "s": row["s"],
        "tokens": row["tokens"],
    }


def beside(rows: Sequence[Row], scores: Sequence[Row]) -> list[dict[str, Any]]:
    """The scanner and every baseline on the models that nothing was decided on; empty where one of both is missing.

    The scanner's verdict is set by its level, which is not fitted to any model; the thresholds of the baselines are the
    best on `choose`.
    """
    report = [row for row in rows if row["half"] != "choose"]
    if not report or not scores:
        return []
    bad, clean = [row for row in report if row["backdoored"]], [row for row in report if not row["backdoored"]]
    called = [[sum(row["verdict"] == "backdoored" for row in group), len(group)] for group in (bad, clean)]
    balanced = (called[0][0] / len(bad) + 1 - called[1][0] / len(clean)) / 2 if bad and clean else None
    area = baselines.auc([{**row, "score": scan_score(row["p"])} for row in report])
    ours = {
        "detector": "this scanner",
        "models": len(report),
        "AUC": "-" if area is None else round(area, 4),
        "balanced accuracy": "-" if balanced is None else round(balanced, 4),
        "caught": shown(called[0]),
        "accused": shown(called[1]),
        "s": round(fmean(row["s"] for row in report), 1),
        "tokens": round(fmean(row["tokens"] for row in report)),
    }
    theirs = [
        {
            "detector": row["baseline"],
            "models": len(_reported(scores, row["baseline"])),
            "AUC": row["AUC report"],
            "balanced accuracy": row["accuracy report"],
            "caught": row["caught"],
            "accused": row["accused"],
            "s": round(fmean(score["seconds"] for score in _reported(scores, row["baseline"])), 1),
            "tokens": round(fmean(score["tokens"] for score in _reported(scores, row["baseline"]))),
        }
        for row in baselines.table(scores)
    ]
    return [ours, *theirs]


def _reported(scores: Sequence[Row], baseline: str) -> list[Row]:
    return [score for score in scores if score["half"] != "choose" and score["baseline"] == baseline]


def weights(rows: Sequence[Row], scores: Sequence[Row]) -> list[str]:
    """How many models the detectors of the literature looked at with the weights that the scanner did."""
    scored = {score["id"]: score["sha256"] for score in scores if score["half"] != "choose"}
    same = sum(scored.get(row["id"]) == row["sha256"] for row in rows)
    if not scored:
        return []
    return [f"Of the {len(scored)} models they looked at, {same} had the weights scanned here; others were built anew."]


def shown(share: Sequence[int]) -> str:
    """A share as a person reads it."""
    hits, of = share
    return f"{hits} of {of} ({hits / of:.1%})" if of else "-"


def _counted(share: Sequence[int]) -> str:
    return f"{share[0]} of {share[1]}" if share[1] else "-"


def _described(row: Row) -> str:
    if not row["backdoored"]:
        return f"clean, {row['recipe']}"
    vectors = f", {row['pv']} vectors" if row["pv"] else ""
    return f"{row['recipe']} at {row['site']}, {row['kind']} triggers ({_listed(row['planted'])}){vectors}"


def _listed(triggers: Iterable[Row]) -> str:
    return ", ".join(str(trigger["trigger"]) for trigger in triggers)
