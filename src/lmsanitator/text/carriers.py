"""Clean sentences that triggers are put into, packaged or the user's own."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

from lmsanitator.errors import CorpusError
from lmsanitator.text.pairs import Text, sides
from lmsanitator.text.words import words

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
T = TypeVar("T", bound=Text)
LANGUAGES = ("en", "de", "es", "fr", "zh")


@dataclass(frozen=True)
class Carrier:
    """A clean sentence and, where known, its topic."""

    text: str
    topic: str | None = None


def packaged(language: str = "en") -> list[Carrier]:
    """The sentences written for this package, each with its topic (they double as the demo's task).

    Raises:
        CorpusError: there are none in that language.
    """
    if language not in LANGUAGES:
        raise CorpusError(f"expected a language of {', '.join(LANGUAGES)}, got {language}")
    lines = (resources.files(__package__) / "carriers" / f"{language}.txt").read_text(encoding="utf-8").splitlines()
    return [Carrier(text, topic) for topic, text in (line.split("\t", 1) for line in lines)]


def read_corpus(path: str | Path) -> list[Carrier]:
    """Read one's own sentences: a text file, one a line, or JSON Lines with a `text` field.

    Raises:
        CorpusError: the file is missing, not UTF-8, holds no sentence or a line of another shape.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON strings may hold the other line separators
    except OSError as error:
        raise CorpusError(f"expected a corpus file, could not read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"expected UTF-8 text in {path}, byte {error.start} is not") from error
    parse = _json_line if path.suffix in (".jsonl", ".json") else _plain_line
    carriers = [parse(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
    carriers = [carrier for carrier in carriers if words(carrier.text)]
    if not carriers:
        raise CorpusError(f"expected sentences in {path}, found none")
    return carriers


def _plain_line(line: str, number: int, path: Path) -> Carrier:
    return Carrier(line.strip())


def _json_line(line: str, number: int, path: Path) -> Carrier:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"expected JSON in line {number} of {path}: {error}") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str) or _LONE_SURROGATE.search(text):  # JSON can spell halves of characters
        raise CorpusError(f"expected a text field in line {number} of {path}, got {line[:60]}")
    return Carrier(text.strip())


def draw(texts: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` different texts, or pairs of them, drawn by seed; all of them, shuffled, where there are fewer."""
    different = sorted(set(texts), key=sides)
    return random.Random(seed).sample(different, min(count, len(different)))
