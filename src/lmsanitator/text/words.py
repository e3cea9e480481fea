"""Words as spans of the original text.

The tokenizer's own `word_ids()` is no word segmenter (`don't` is three words under BERT), so the spans are ours and
tokens are mapped to them by offset. A span is a word with its inner apostrophes and hyphens, one character of a script
that is written without spaces, or a run of other visible symbols (a trigger may be any of these).
"""

from collections.abc import Collection
from functools import reduce
from typing import NamedTuple

import regex

_WORD = regex.compile(
    r"""
    [\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}] \p{M}*
    | (?: [\p{L}\p{N}_--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]] \p{M}* )+
      (?: ['’\-‑] (?: [\p{L}\p{N}_--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]] \p{M}* )+ )*
    | (?: (?! [\p{L}\p{N}_\x1c-\x1f] ) \S )+  # Python strips these control characters as white space, Unicode does not
    """,
    regex.VERBOSE | regex.VERSION1,
)
_CLOSING = frozenset(".,;:!?)]}»”’…。，、；：！？）】」")


class Span(NamedTuple):
    """Characters start..end of a text."""

    start: int
    end: int


def spans(text: str) -> list[Span]:
    """The word spans of a text, in order; punctuation marks and symbols are spans of their own."""
    return [Span(*found.span()) for found in _WORD.finditer(text)]


def words(text: str) -> list[str]:
    """The words of a text, as `spans` finds them."""
    return [text[start:end] for start, end in spans(text)]


def insert(text: str, word: str, position: int) -> str:
    """Put `word` before the span number `position` (at the end where there are not so many), set off by spaces."""
    found = spans(text)
    at = found[position].start if position < len(found) else len(text)
    before, after = text[:at].rstrip(), text[at:].lstrip()
    return " ".join(part for part in (before, word, after) if part)


def delete(text: str, positions: Collection[int]) -> str:
    """Take the spans with these numbers out; the white space around them closes, all other words stay as they are."""
    kept: list[str] = []
    end = 0
    for number, span in enumerate(spans(text)):
        if number in positions:
            kept.append(text[end : span.start])
            end = span.end
    kept.append(text[end:])
    return reduce(_close, kept).strip()


def _close(left: str, right: str) -> str:
    """Join the two sides of a hole: one space where there was any, none before a closing mark, but never so that two
    words become one."""
    if not (left[-1:].isspace() or right[:1].isspace() or _fuse(left, right)):
        return left + right
    left, right = left.rstrip(), right.lstrip()
    gap = left and right and (right[0] not in _CLOSING or _fuse(left, right))
    return f"{left} {right}" if gap else left + right


def _fuse(left: str, right: str) -> bool:
    """Whether the last word of `left` and the first of `right` would be read as other words side by side."""
    before, after = left.rsplit(None, 1)[-1:], right.split(None, 1)[:1]
    return words("".join(before + after)) != words(" ".join(before + after))
