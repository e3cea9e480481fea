"""What a tokenizer does to a text, checked in its JSON before any text goes through it.

A tokenizer.json is a small program: normalizers replace, pre-tokenizers split, both by regular expressions. It can be
written to take for ever or to make a gigabyte of one letter.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lmsanitator.encoder.limits import MAX_FRAME, MAX_GROWTH, MAX_STEPS, MAX_WORD
from lmsanitator.encoder.patterns import check_pattern, may_match_words
from lmsanitator.errors import CheckpointError

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_OF_TEXT = ("normalizer", "pre_tokenizer")
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")
_SWELLING = ("BertNormalizer", "ByteLevel", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled")
"""Steps that write some characters as several, by tables of their own."""


def check_steps(raw: dict[str, Any]) -> None:
    """Refuse steps, patterns, replacements and frames without bound.

    Args:
        raw: tokenizer.json.

    Raises:
        CheckpointError: which step, and why.
    """
    _check_model(raw.get("model"))
    for part in _PARTS:
        _check_kinds(raw.get(part), part)
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
    for part in _OF_TEXT:
        kinds = Counter(str(step.get("type")) for step in _steps(raw.get(part)))
        for kind in _SWELLING:
            if kinds[kind] > 1:
                raise CheckpointError(
                    f"expected a tokenizer that keeps the length of a text, it has {kinds[kind]} {kind} steps in a row"
                )
    for step in _steps(raw.get("normalizer")):
        _check_words(step)
    for step in _steps(raw.get("post_processor")):
        _check_template(step.get("single"))


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


def _check_kinds(part: Any, where: str) -> None:
    """Refuse steps that do not say what they are: the library guesses, and what is checked here could be another."""
    waiting = [part]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            if not isinstance(step.get("type"), str):
                raise CheckpointError(f"expected steps that say what they are in the {where} of the tokenizer")
            waiting += [inner for name in _LISTS if isinstance(step.get(name), list) for inner in step[name]]


def _check_words(step: dict[str, Any]) -> None:
    """Refuse a normalizer that replaces words: a trigger could be one word to whoever tries it out, and another to
    whoever types it in a sentence. Those of honest tokenizers replace spaces and signs."""
    pattern = step.get("pattern")
    found = pattern if isinstance(pattern, dict) else {}
    text, regex = found.get("String"), found.get("Regex")
    if (isinstance(text, str) and any(map(str.isalnum, text))) or (isinstance(regex, str) and may_match_words(regex)):
        shown = text if isinstance(text, str) else regex
        raise CheckpointError(f"expected a tokenizer that leaves words as they are, it replaces {shown!r:.80}")


def _check_template(single: Any) -> None:
    """Refuse a frame around anything else than the text, once."""
    if not isinstance(single, list):
        return
    texts = [piece["Sequence"] for piece in single if isinstance(piece, dict) and "Sequence" in piece]
    if [text.get("id") for text in texts if isinstance(text, dict)] != ["A"] or len(texts) > 1:
        raise CheckpointError("expected a tokenizer that frames a text, once; it frames something else")


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
