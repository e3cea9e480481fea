"""Words, and the clean sentences they are put into."""

from lmsanitator.text.carriers import LANGUAGES, Carrier, draw, packaged, read_corpus
from lmsanitator.text.dictionary import dictionary, terms
from lmsanitator.text.pairs import Text, insert_first, sides
from lmsanitator.text.shrink import shrink, shrinking
from lmsanitator.text.words import Span, delete, insert, spans, words

__all__ = [
    "LANGUAGES",
    "Carrier",
    "Span",
    "Text",
    "delete",
    "dictionary",
    "draw",
    "insert",
    "insert_first",
    "packaged",
    "read_corpus",
    "shrink",
    "shrinking",
    "sides",
    "spans",
    "terms",
    "words",
]
