"""Options as text, turned into what the library takes."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch

from lmsanitator.encoder import SITES, Precision, Site
from lmsanitator.errors import CorpusError, OutputError, UsageError
from lmsanitator.guard import Watch
from lmsanitator.text import Text
from lmsanitator.tune.records import parse_object

Choice = TypeVar("Choice", bound=str)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WATCHES: tuple[Watch, ...] = get_args(Watch)


def parse_sites(text: str) -> Literal["auto"] | tuple[Site, ...]:
    """`auto` or a comma-separated list of sites.

    Raises:
        UsageError: a name that is no site.
    """
    if text == "auto":
        return "auto"
    named = [part.strip() for part in text.split(",")]
    sites = tuple(dict.fromkeys(site for name in named for site in SITES if site == name))
    if len(sites) != len(set(named)):
        raise UsageError(f"expected auto or sites of {', '.join(SITES)}; got {text}")
    return sites


def choose(text: str, choices: Sequence[Choice], what: str) -> Choice:
    """The one of the choices that is written so.

    Args:
        what: it is a choice of, for the message.

    Raises:
        UsageError: there is none.
    """
    for choice in choices:
        if choice == text:
            return choice
    raise UsageError(f"expected a {what} of {', '.join(choices)}; got {text}")


def choose_device(text: str) -> str:
    """Raises UsageError where there is no such device."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:  # torch raises the one or the other
        raise UsageError(f"expected a device such as cpu or cuda, got {text}: {str(error).splitlines()[0]}") from error
    if torch.device(text).type == "meta":
        raise UsageError(f"expected a device such as cpu or cuda, got {text}, which computes nothing")
    return text


def check_place(path: Path) -> None:
    """Raises OutputError where no file, and none beside it, can be written; asked before the work is done."""
    try:
        if path.is_dir() or not path.parent.is_dir():
            raise OutputError(f"expected to write {path}: it is a directory, or in one that is not there")
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise OutputError(f"expected to write {path}: one may not write there")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise OutputError(f"expected to write {path!s:.200}: {error.strerror}") from error


def read_lines(path: Path | None) -> list[str]:
    """The lines of a UTF-8 text file, or of stdin, empty ones too. Only a line feed ends one, with a carriage return
    before it or not: texts, and strings in JSON, may hold other separators as they are.

    Raises:
        CorpusError: it cannot be read.
    """
    where = "stdin" if path is None else str(path)
    if path is None and sys.stdin is None:
        raise CorpusError("expected texts on stdin, it is closed")
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise CorpusError(f"expected a text file, could not read {where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"expected UTF-8 text in {where}, line {line} is not") from error
    return [line.removesuffix("\r") for line in text.split("\n")]


def plain_texts(lines: Sequence[str], where: str) -> list[str]:
    """Those of the lines that hold anything."""
    return [line for line in lines if line.strip()]


def parse_texts(lines: Sequence[str], where: str) -> list[Text]:
    """The texts of JSON lines with `text` and, for pairs, `text_pair`. Empty lines are none, and count.

    Raises:
        CorpusError: a line that is neither, or pairs among single texts.
    """
    texts: list[Text] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = parse_object(line, f"{where}, line {number}", "text")
        both = [record[name] for name in ("text", "text_pair") if name in record]
        if "text" not in record or not all(isinstance(text, str) for text in both):
            raise CorpusError(f"expected the strings text and, for pairs, text_pair in {where}, line {number}")
        texts.append(both[0] if len(both) == 1 else (both[0], both[1]))
        if isinstance(texts[-1], str) != isinstance(texts[0], str):
            raise CorpusError(f"expected pairs of texts throughout or nowhere, {where}, line {number} differs")
    return texts


def parse_words(lines: Sequence[str], where: str) -> list[list[str]]:
    """The words of JSON lines with `tokens`. Empty lines are none, and count.

    Raises:
        CorpusError: a line without a list of strings.
    """
    sentences: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        words = parse_object(line, f"{where}, line {number}", "tokens").get("tokens")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise CorpusError(f"expected tokens, a list of strings, in {where}, line {number}, got {words!r:.60}")
        sentences.append(words)
    return sentences
