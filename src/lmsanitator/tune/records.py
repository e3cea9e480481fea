"""JSON Lines files of labelled examples, line by line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmsanitator.errors import CorpusError

Record = tuple[Mapping[str, Any], str]
"""An object, and where it stands, for error messages."""


def read_records(path: Path, fields: str, required: bool) -> list[Record]:
    """The objects of a file, one a line; none where the file is not there and not required.

    Args:
        fields: what an object should hold, for the message.

    Raises:
        CorpusError: what was expected and what came, with file and line.
    """
    if not required and not path.exists():
        return []
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"expected a task file, could not read {path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"expected UTF-8 in {path}, line {line} is not") from error
    # only \n ends a line: JSON strings may hold other line separators as they are
    lines = [(line, f"{path}, line {number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise CorpusError(f"expected examples in {path}, found none")
    return [(parse_object(line, where, fields), where) for line, where in lines]


def parse_object(line: str, where: str, fields: str) -> Mapping[str, Any]:
    """The object that a line of JSON holds.

    Raises:
        CorpusError: it is no JSON, or no object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"expected JSON in {where}: {error}") from error
    if not isinstance(record, dict):
        raise CorpusError(f"expected an object with {fields} in {where}, got {line.strip()[:60]}")
    return record
