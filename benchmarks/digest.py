"""Digests of what a cached result was made by, so that it is made again when that changes."""

import hashlib
from pathlib import Path

import lmsanitator

_SOURCE = Path(lmsanitator.__file__).parent


def code(*rooms: str) -> str:
    """A digest of the package's version and of the source of some of its rooms (`detect`, `guard`)."""
    digest = hashlib.sha256(lmsanitator.__version__.encode())
    for room in rooms:
        for path in sorted((_SOURCE / room).glob("*.py")):
            digest.update(f"{room}/{path.name}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def of(*parts: str) -> str:
    """One digest of some strings."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
