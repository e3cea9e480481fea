"""Texts that are classified alone, and pairs of texts that are classified together."""

from lmsanitator.text.words import insert

Text = str | tuple[str, str]
"""A text, or a pair of texts that is classified together."""


def sides(text: Text) -> tuple[str, ...]:
    """The text, or both texts of a pair."""
    return (text,) if isinstance(text, str) else text


def insert_first(text: Text, word: str, position: int) -> Text:
    """`insert` into a text, or into the first text of a pair."""
    return insert(text, word, position) if isinstance(text, str) else (insert(text[0], word, position), text[1])
