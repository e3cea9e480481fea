"""Words, and the clean sentences they are put into."""

from lmsanitator.text.carriers import LANGUAGES, Carrier, draw, packaged, read_corpus
from lmsanitator.text.shrink import shrink, shrinking
from lmsanitator.text.words import Span, delete, insert, spans, words

__all__ = [
    "LANGUAGES",
    "Carrier",
    "Span",
    "delete",
    "draw",
    "insert",
    "packaged",
    "read_corpus",
    "shrink",
    "shrinking",
    "spans",
    "words",
]
