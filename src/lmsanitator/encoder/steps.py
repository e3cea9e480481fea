"""What a tokenizer does to a text, checked in its JSON before any text goes through it.

A tokenizer.json is a small program: normalizers replace, pre-tokenizers split, both by regular expressions. It can be
written to take for ever or to make a gigabyte of one letter.
"""

from collections.abc import Iterator
from typing import Any

from lmsanitator.encoder.limits import MAX_FRAME, MAX_GROWTH, MAX_STEPS, MAX_WORD
from lmsanitator.encoder.patterns import check_pattern
from lmsanitator.errors import CheckpointError

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def check_steps(raw: dict[str, Any]) -> None:
    """Refuse steps, patterns, replacements and frames without bound.

    Args:
        raw: tokenizer.json.

    Raises:
        CheckpointError: which step, and why.
    """
    _check_model(raw.get("model"))
    steps = [step for part in _PARTS for step in _steps(raw.get(part))]
    if len(steps) > MAX_STEPS:
        raise CheckpointError(f"expected at most {MAX_STEPS} steps in the tokenizer, found {len(steps):,}")
    growth = 1.0
    for step in steps:
        growth *= _growth(step)
        for name, value in step.items():
            if isinstance(value, list) and len(value) > MAX_FRAME:
                raise CheckpointError(
                    f"expected at most {MAX_FRAME} entries in {name} of the tokenizer, found {len(value):,}"
                )
    if growth > MAX_GROWTH:
        raise CheckpointError(f"expected a tokenizer that keeps the length of a text, it may grow {growth:,.0f} times")


def _check_model(model: Any) -> None:
    """Refuse what makes other tokens of the same text each time: a trigger that the guard looks for in one pass could
    be in another one alone. And words of any length, each piece of which is looked up."""
    about = model if isinstance(model, dict) else {}
    if about.get("dropout"):
        raise CheckpointError(
            f"expected the same tokens of a text each time, the tokenizer has dropout {about['dropout']!r:.80}"
        )
    longest = about.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > MAX_WORD:
        raise CheckpointError(f"expected words of at most {MAX_WORD} letters in the tokenizer, it takes {longest:,}")


def holds_table(raw: dict[str, Any]) -> bool:
    """Whether a normalizer looks characters up in a table of its own, of which only trying shows what it does."""
    return any(step.get("type") == "Precompiled" for step in _steps(raw.get("normalizer")))


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """All objects of a part, nested ones after the one that holds them."""
    waiting = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "type" in value or "ids" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += [inner for inner in value if isinstance(inner, dict | list)]


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a step can make a text; of prefixes, as if the text were one character."""
    pattern = step.get("pattern")
    if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
        shortest = check_pattern(pattern["Regex"]).shortest
    elif isinstance(pattern, dict) and isinstance(pattern.get("String"), str):
        shortest = len(pattern["String"])
    else:
        shortest = 1
    added = max(len(step[name]) if isinstance(step.get(name), str) else 0 for name in ("content", "prepend"))
    if "prepend" in step:
        return 1.0 + (added if added > 1 else 0)
    return max(1.0, added / shortest if shortest else 1.0 + added)
