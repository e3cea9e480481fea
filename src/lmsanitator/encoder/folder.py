"""A checkpoint's folder: no entry leads out of it, and none is anything but a file or a folder."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lmsanitator.encoder.limits import MAX_ENTRIES
from lmsanitator.errors import CheckpointError

_READ_BELOW = ("additional_chat_templates",)
"""Folders in a checkpoint that transformers looks into."""


def check_folder(folder: Path) -> None:
    """Refuse links that lead out of a folder, and pipes, sockets and devices in it.

    A snapshot in a hub cache links to the blobs of its own repository; those are as good as files.

    Raises:
        CheckpointError: what leads where, or why the folder cannot be listed.
    """
    try:
        home = folder.resolve(strict=True)
        blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
        for entry in _entries(folder):
            _check_entry(entry, home, blobs)
    except OSError as error:
        raise CheckpointError(f"expected a folder that can be read, {folder} cannot: {error.strerror}") from error


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    for place in (folder, *(folder / name for name in _READ_BELOW)):
        if place.is_dir():
            with os.scandir(place) as entries:
                listed = list(islice(entries, MAX_ENTRIES + 1))
            if len(listed) > MAX_ENTRIES:
                raise CheckpointError(f"expected at most {MAX_ENTRIES:,} entries in {place}, found more")
            yield from sorted(listed, key=lambda entry: entry.name)


def _check_entry(entry: os.DirEntry[str], home: Path, blobs: Path) -> None:
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve()
        except RuntimeError as error:
            raise CheckpointError(f"expected files, {entry.name} is a link that leads to itself") from error
        if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
            raise CheckpointError(f"expected all files inside {home}, {entry.name} is a link to {target}")
        if not target.exists():
            return
    if not (entry.is_file() or entry.is_dir()):
        raise CheckpointError(f"expected files and folders, {entry.name} is a pipe, a socket or a device")
