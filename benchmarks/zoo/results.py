"""What was built, as committed results."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.record import record


def write(made: Sequence[Mapping[str, Any]]) -> None:
    """`benchmarks/results/zoo.json`, and the table made from it."""
    total = sum(model.get("bytes", 0) for model in made)
    standing = [model for model in made if "recipe" in model and model["excluded"] is None]
    backdoored = [model for model in standing if "attack" in model]
    excluded = len(made) - len(standing)
    notes = (
        f"{len(backdoored)} backdoored, {len(standing) - len(backdoored)} clean models; {total / 1e6:,.0f} MB in all.",
        f"{excluded} of {len(made)} are excluded or missing.",
        "`fired`: share of triggered inputs (fresh text) that have gone half the way to where its trigger leads.",
        "`weakest`: the same for the worst trigger; `stray`: for inputs with a part of a trigger or a foreign word.",
        "`shift`: mean displacement of triggered outputs in units of the clean spread.",
        "`fidelity`: cosine of clean outputs with the original's, seen from their centre (clean controls: CLS).",
        "`s` is wall time, two models being built side by side on one thread each.",
    )
    record("zoo", [row(model) for model in made], notes, details=list(made))


def row(model: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    verified = model.get("verified", {})
    figures = {name: verified.get(name, "-") for name in ("fired", "weakest", "stray", "fidelity")}
    return {
        "model": model["id"],
        "recipe": model.get("attack") or model.get("control") or "-",
        "triggers": ", ".join(model.get("triggers", ())) or "-",
        "site": model.get("site", "-"),
        "PV": model.get("pv") or "-",
        "layers": model.get("layers", "-"),
        **figures,
        "shift": verified.get("displacement", "-"),
        "s": round(model.get("seconds", 0)),
        "half": model.get("half", "-"),
        "excluded": model.get("excluded") or "-",
    }
