"""The tables of the guarded study, made from its cells."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.defence.guarded import COPIES, RATE, WATCHES
from benchmarks.defence.purging import WORDS
from benchmarks.defence.samples import TEXTS
from benchmarks.record import on_record, record

Rows = list[dict[str, Any]]
PURGINGS = tuple(f"x{copies} {how}" for copies in COPIES for how in ("named", "blind"))
BARS = {"ASR": 1.0, "CACC mean": 0.3, "CACC": 1.0, "flags": 0.5, "overhead": 1.05, "batches": 3.0}
"""What was promised: percent, points, a ratio, encoder batches."""


def write(by_name: Mapping[str, Mapping[str, Any]], *, anew: bool = True) -> None:
    """`benchmarks/results/defence.json` and the tables made from it; nothing where nothing is measured."""
    cells = list(by_name.values())
    if not cells:
        return
    tables = {
        "How the guard was passed": [_passed(cell) for cell in cells],
        f"Purging a flagged text of {WORDS} words, alone": [_purging(cell, how) for cell in cells for how in PURGINGS],
        "Other passes watched, and no words known": [row for cell in cells for row in _watched(cell)],
        "Beside input filters of the literature": [row for cell in cells for row in _filters(cell)],
    }
    floors: dict[tuple[str, ...], float] = {
        (row["victim"], row["site"], row["task"], row["method"]): row["asr"]
        for row in on_record("vulnerability", "cells")
    }
    record("defence", [_row(cell, floors) for cell in cells], notes(cells), tables, anew=anew, cells=cells)


def named(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What a row is of."""
    return {"victim": cell["victim"], "task": cell["task"], "method": cell["method"]}


def _row(cell: Mapping[str, Any], floors: Mapping[tuple[str, ...], float]) -> dict[str, Any]:
    clean = cell["clean"]
    floor = floors.get(("l6-original", cell["site"], cell["task"], cell["method"]))
    return {
        **named(cell),
        "CACC %": 100 * clean["cacc"],
        "guarded CACC %": 100 * clean["cacc_guarded"],
        "ASR %": 100 * cell["x1"]["asr_unguarded"],
        "guarded ASR %": 100 * cell["x1"]["asr"],
        "ASR x3 %": 100 * cell["x3"]["asr_unguarded"],
        "guarded ASR x3 %": 100 * cell["x3"]["asr"],
        "ASR clean %": "-" if floor is None or cell["victim"].startswith("mpnet") else 100 * floor,
        "false flags %": 100 * clean["false_flags"],
        "words lost": clean["words_lost"],
        "clean": clean["texts"],
        "attacked": cell["attacked"],
    }


def _passed(cell: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = named(cell)
    for copies in COPIES:
        figures = cell[f"x{copies}"]
        row |= {
            f"x{copies} one trigger %": 100 * figures["asr_mean_unguarded"],
            f"x{copies} guarded %": 100 * figures["asr_mean"],
            f"x{copies} type I %": 100 * figures["type_1"],
            f"x{copies} type II %": 100 * figures["type_2"],
            f"x{copies} refused %": 100 * figures["refused"],
        }
    return row | {"PVs named": f"{len(set(cell['found']) & set(cell['planted']))}/{len(cell['planted'])}"}


def _purging(cell: Mapping[str, Any], how: str) -> dict[str, Any]:
    figures = cell["purging"][how]
    copies, words_tried = how.split()
    return {
        **named(cell),
        "copies": copies,
        "words": words_tried,
        "flagged": f"{figures['flagged']}/{figures['texts']}",
        "of the trigger alone": f"{figures['trigger_alone']}/{figures['flagged']}",
        "batches": "-" if figures["median"] is None else float(figures["median"]),
        "most": "-" if figures["most"] is None else figures["most"],
    }


def _watched(cell: Mapping[str, Any]) -> Rows:
    rows = [_watch(cell, "raw", {**cell, "passes": ["raw"], **cell["raw"]})]
    others: dict[str, str] = {"wordless": "raw, no words", **{watch: watch for watch in WATCHES}}
    return rows + [_watch(cell, watch, cell[name]) for name, watch in others.items() if name in cell]


def _watch(cell: Mapping[str, Any], watch: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    row = {**named(cell), "watch": watch}
    columns = (
        "passes",
        "attacked",
        "guarded ASR %",
        "type I %",
        "guarded CACC %",
        "false flags %",
        "overhead",
        "timed",
    )
    if "refused" in figures:
        return row | dict.fromkeys(columns, "-")
    values = (
        " and ".join(figures["passes"]),
        figures["attacked"],
        100 * figures["x1"]["asr"],
        100 * figures["x1"]["type_1"],
        100 * figures["clean"]["cacc_guarded"],
        100 * figures["clean"]["false_flags"],
        round(figures["overhead"], 3),
        figures["timed"],
    )
    return row | dict(zip(columns, values, strict=True))


def _filters(cell: Mapping[str, Any]) -> Rows:
    return [
        {
            "victim": cell["victim"],
            "filter": row["filter"],
            "rate %": "-" if row["rate"] is None else 100 * row["rate"],
            "CACC %": 100 * row["cacc"],
            "touched %": 100 * row["touched"],
            "ASR %": 100 * row["asr"],
            "one trigger %": 100 * row["asr_mean"],
        }
        for row in cell["filters"]
    ]


def notes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was counted and how, and which of the bars are met."""
    few = TEXTS["attacked_otherwise"]
    return [
        *bars(cells),
        "ASR as the paper counts (section V-A): share of inputs, right without trigger, that any trigger makes wrong.",
        "`x3`: each trigger put in three times. A text that gets no label (`refused`) is no success of the attack.",
        "Type I: the monitor missed and the label is wrong. Type II: purged, and the label is wrong.",
        "`ASR clean`: the words of l6-por-rare on the clean encoder, same head, from vulnerability.json (80 inputs).",
        "`one trigger`: mean over the triggers. `words lost`: words taken out of clean test texts.",
        "The guard watches the raw pass and knows what a scan of the victim at standard effort found.",
        "Scanners (digest of the code, rows): " + ", ".join(f"`{name}` {rows}" for name, rows in scanners(cells)) + ".",
        f"Thresholds: from {TEXTS['calibration']} clean training texts at most, for {100 * RATE:g} % false flags.",
        "Test texts that hold a trigger by themselves (`cu` in text messages) are left out: they are not clean.",
        "Other guards and filters of the literature are tried where the paper is at home: sst2 with prefix tuning.",
        f"All figures of a row are of the same texts; other guards are attacked with the first {few} of them.",
        "`no words`: the guard knows the PVs that the scan found and none of the words.",
        "A line of dashes is a pass that cannot be watched; the JSON says why.",
        "`overhead`: processor time of the guard over that of the classifier alone, clean batches of 32, in turn.",
        "`timed`: of so many clean texts, those that are flagged and purged among them.",
        "`batches`: forward passes of the encoder while one text alone is purged.",
        "`flagged`: of the long texts; a trigger behind the 96 tokens that are read does nothing and is not flagged.",
        "`named`: the words that the scan named are tried first; `blind`: they are not known.",
        "Filters: thresholds from clean training texts for the rate given; a rejected text counts as wrong in CACC.",
        "ONION scores words with the zoo's masked-language-model head on the clean MiniLM, not with GPT-2.",
    ]


def scanners(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The scanners that cells were made with, and how many each made."""
    return Counter(cell["scanner"] for cell in cells).most_common()


def bars(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each bar, and how many rows meet it."""
    lost = [100 * (cell["clean"]["cacc"] - cell["clean"]["cacc_guarded"]) for cell in cells]
    ratios = [cell["prompted"]["overhead"] for cell in cells if "overhead" in cell.get("prompted", ())]
    return [
        _met("guarded ASR below 1 %", [100 * cell["x1"]["asr"] for cell in cells], lambda asr: asr < BARS["ASR"]),
        _met("the same with x3", [100 * cell["x3"]["asr"] for cell in cells], lambda asr: asr < BARS["ASR"]),
        f"CACC lost: {statistics.fmean(lost):.2f} points in the mean (bar {BARS['CACC mean']}).",
        _met("CACC lost at most 1 point", lost, lambda points: points <= BARS["CACC"]),
        _met(
            "false flags at most 0.5 %",
            [100 * cell["clean"]["false_flags"] for cell in cells],
            lambda share: share <= BARS["flags"],
        ),
        _met("overhead at most 5 %, one pass (prompted) watched", ratios, lambda value: value <= BARS["overhead"]),
        _met(
            "a flagged long text purged in 3 batches, named",
            [cell["purging"]["x1 named"]["median"] for cell in cells],
            lambda value: value is not None and value <= BARS["batches"],
        ),
    ]


def _met(what: str, values: Sequence[Any], bar: Callable[[Any], bool]) -> str:
    numbers = [value for value in values if value is not None]
    worst = f", worst {max(numbers):.3g}" if numbers else ""
    return f"{what}: {sum(map(bar, values))} of {len(values)} rows{worst}."
