"""Write results whole or not at all."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from lmsanitator.errors import OutputError


def require_new(out: Path) -> None:
    """Raise OutputError if `out` exists, since nothing is ever overwritten, or if it cannot come to exist.

    Asked before the work begins, so that minutes of it are not lost at the end.
    """
    try:
        there = os.path.lexists(out) or out.exists()
    except OSError as error:  # a name that is too long
        raise OutputError(f"expected a place to write to, cannot write {out!s:.200}: {error.strerror}") from error
    if there:
        raise OutputError(f"expected a new directory to write to, {out} exists")
    place = next(parent for parent in out.absolute().parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise OutputError(f"expected a place to write to, cannot write {out}: {place} is no folder one may write in")


def readable(path: Path) -> None:
    """Give a file or folder the permissions that new ones have: safetensors and tempfile make theirs for the owner
    alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and is gone otherwise.

    Raises:
        OutputError: `out` exists or cannot be written.
    """
    require_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"expected a place to write to, cannot write {out}: {error.strerror}") from error
    try:
        yield part
        for path in (part, *part.rglob("*")):
            readable(path)
        part.rename(out)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"expected to write {out}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def together(*outs: Path) -> Iterator[list[Path]]:
    """Temporary files beside `outs` that take their places, in this order, when the block ends well, and are gone
    otherwise. An old file whose new one was not written goes as well.

    Raises:
        OSError: one of them cannot be written.
    """
    parts = [out.with_name(f".{out.name}.{secrets.token_hex(4)}") for out in outs]
    try:
        yield parts
        for part, out in zip(parts, outs, strict=True):
            if part.exists():
                part.replace(out)
            else:
                out.unlink(missing_ok=True)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def write_file(out: Path, text: str) -> None:
    """Write `text` to `out` in UTF-8, in the place of a file that is there already.

    Raises:
        OutputError: `out` is something else than a file, or cannot be written.
    """
    if out.exists() and not out.is_file():
        raise OutputError(f"expected to write a file, {out} is something else")
    try:
        with together(out) as (part,), part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)  # unlike mkstemp's, with the user's permissions
    except OSError as error:
        raise OutputError(f"expected to write {out}: {error.strerror}") from error
