"""Digests of what a cached result was made by, so that it is made again when that changes."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import lmsanitator

_SOURCE = Path(lmsanitator.__file__).parent


def code(*parts: str, but: Collection[str] = ()) -> str:
    """A digest of the source of some of the package's rooms (`detect`, `guard`) or files (`encoder/frozen.py`), with
    the data in them: another dictionary finds other words.

    Args:
        but: files that have no say in the result.
    """
    places = [_SOURCE / part for part in parts]
    sources = [path for place in places for path in ([place] if place.is_file() else _files(place))]
    left_out = {_SOURCE / part for part in but}
    sources = [path for path in sources if path not in left_out]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _files(room: Path) -> list[Path]:
    return [path for path in sorted(room.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]


def of(*parts: str) -> str:
    """One digest of some strings."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
