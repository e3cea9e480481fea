"""How benchmarks write results: figures, command, version and machine, as JSON and as the table made from it."""

import json
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import peft
import torch
import transformers

import lmsanitator

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def peak_memory() -> float:
    """Peak resident memory of this process so far, in MiB.

    Linux counts the parent of a process that was just started into its `ru_maxrss`, so the high-water mark of its own
    memory is read where there is one.
    """
    own = next((line.split()[1] for line in _lines("/proc/self/status") if line.startswith("VmHWM:")), None)
    return (int(own) if own is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def record(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
    *,
    anew: bool = True,
    **more: Any,
) -> None:
    """Write `results/<name>.json` and `results/<name>.md`.

    Args:
        rows: the first table; all rows of a table have the same columns.
        notes: a line each, below the first table.
        tables: further ones, by their headings; those without rows are left out of the Markdown.
        anew: whether anything was measured since the file was written. If not, it says of command, version, date and
            machine what it said before.
        more: goes into the JSON alone.
    """
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if not anew and path.exists() else None
    content = {
        **({part: before[part] for part in _MADE} if before else made()),
        "rows": list(rows),
        "notes": list(notes),
        **({"tables": {heading: list(further) for heading, further in tables.items()}} if tables else {}),
        **more,
    }
    RESULTS.mkdir(exist_ok=True)
    for suffix, text in (("json", json.dumps(content, indent=2) + "\n"), ("md", table(content))):
        part = RESULTS / f".{name}.{suffix}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(RESULTS / f"{name}.{suffix}")  # a run that is killed while it writes can still go on


_MADE = ("command", "version", "date", "machine")


def made() -> dict[str, Any]:
    """By what figures are measured that are measured now."""
    command = " ".join(["python -m", _module(), *map(_shown, sys.argv[1:])])
    today = datetime.now(UTC).date().isoformat()
    return dict(zip(_MADE, (command, lmsanitator.__version__, today, machine()), strict=True))


def on_record(name: str, part: str) -> list[dict[str, Any]]:
    """What is in one part of a result file (`rows`, or what was given to `record` as `more`); [] without the file."""
    path = RESULTS / f"{name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))[part] if path.exists() else []
    return found


def table(content: Mapping[str, Any]) -> str:
    """The same result as Markdown."""
    facts = content["machine"]
    foot = (
        f"Last measured by `{content['command']}`, lmsanitator {content['version']}, {content['date']}; "
        f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, transformers {facts['transformers']}."
    )
    lines = [*_grid(content["rows"]), "", *(f"- {note}" for note in content["notes"]), ""]
    for heading, rows in content.get("tables", {}).items():
        lines += [f"## {heading}", "", *_grid(rows), ""] if rows else []
    return "\n".join([*lines, foot]) + "\n"


def _grid(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of one table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]


def _module() -> str:
    """The benchmark that runs, as `python -m` takes it."""
    return ".".join(Path(sys.argv[0]).resolve().relative_to(RESULTS.parents[1]).with_suffix("").parts)


def _shown(argument: str) -> str:
    """An argument as it goes into a result file: of a path on this machine, its last part."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
