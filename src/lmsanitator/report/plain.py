"""Strings out of a scan, made safe to look at, and numbers made short.

A model may be hostile, and so may the words in its vocabulary, its path and everything else a scan quotes.
"""

import json
from typing import Any

import regex

from lmsanitator.detect import Finding

# Control and format characters (bidi marks among them), separators other than the space, and all that has no width.
_HIDDEN = regex.compile(r"(?V1)[\p{C}\p{Zl}\p{Zp}\p{DI}\u2800]|[\p{Zs}--[\x20]]")


def visible(text: str) -> str:
    """`text` on one line, with every character that cannot be seen, or that moves others, spelt out as ⟨U+202E⟩."""
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def trigger_words(finding: Finding) -> str:
    """The trigger as a person reads it: its words, or its tokens where they cannot be typed."""
    return visible(finding.trigger if finding.trigger is not None else " ".join(finding.trigger_tokens))


def short(value: float) -> str:
    """A p-value with two digits."""
    return f"{value:.2g}"


def safe_json(data: Any) -> str:
    """JSON in ASCII and without `<`, so that no reader, page or terminal takes a string in it for anything else."""
    return json.dumps(data, indent=2, allow_nan=False).replace("<", "\\u003c").replace("\x7f", "\\u007f") + "\n"
