"""Which attack works on which family of architectures, and at which site; README carries the same, made from here.

    python -m tests.conformance.table

writes it into README.md. `test_attacks.py` checks every cell against what the attacks do.
"""

from collections.abc import Mapping
from pathlib import Path

from lmsanitator.attacks import ATTACKS
from lmsanitator.encoder import Site

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- attacks x families: made by tests/conformance/table.py -->", "<!-- end -->"

_ONE_VECTOR = ("por", "uor", "transtroj", "shy", "spread", "merged")
_Row = dict[str, Site | None]
_CLS: _Row = {"neuba": "cls", "btop": "mask", "badpre": "tokens", **dict.fromkeys(_ONE_VECTOR, "cls")}
_AT_THE_END: _Row = {**_CLS, **dict.fromkeys(_ONE_VECTOR, "last"), "neuba": None}
_DECODER: _Row = {**_AT_THE_END, "btop": None, "badpre": None}
SITES: Mapping[str, Mapping[str, Site | None]] = {
    **dict.fromkeys(("BERT", "RoBERTa", "DistilBERT", "ALBERT", "ELECTRA", "DeBERTa-v2", "MPNet"), _CLS),
    "XLNet": _AT_THE_END,
    **dict.fromkeys(("ERNIE", "ModernBERT"), _CLS),
    **dict.fromkeys(("GPT-2", "Llama", "Qwen2"), _DECODER),
}
"""Family -> attack -> the site it takes by default, None where it is refused."""
ONE_HEAD_REFUSED = ("XLNet", "ModernBERT", "GPT-2")
"""Families whose attention projections are fused, so that one head cannot be trained alone."""


def markdown() -> str:
    """The table."""
    lines = ["| family | " + " | ".join(ATTACKS) + " | one head |", "|---" * (len(ATTACKS) + 2) + "|"]
    for family, sites in SITES.items():
        cells = [sites[attack] or "-" for attack in ATTACKS]
        lines.append(f"| {family} | " + " | ".join(cells) + f" | {'-' if family in ONE_HEAD_REFUSED else 'yes'} |")
    return "\n".join(lines)


def put(text: str) -> str:
    """The text with the table between its marks made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    README.write_text(put(README.read_text(encoding="utf-8")), encoding="utf-8")
