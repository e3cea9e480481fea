"""What a scan has found so far, kept on disk: a scan that was killed goes on from its last finished stage.

Every stage draws from the seed alone, so a stage that is read from the journal leaves the rest of the scan as it would
have been. What is kept are tensors and JSON (safetensors), never a pickle.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lmsanitator.detect.confirm import Suspect
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.lexicon import Word
from lmsanitator.detect.seen import Searched
from lmsanitator.detect.sweep import SweepResult
from lmsanitator.encoder import Site
from lmsanitator.encoder.frozen import TokenMeter
from lmsanitator.errors import OutputError

_STATED = tuple(field.name for field in fields(Evidence) if field.name != "pv")
_FORGOTTEN = 30 * 24 * 3600
"""Seconds after which the journal of a scan that nobody went on with is deleted."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Packed:
    """A result as it is kept: its tensors, and the rest as JSON."""

    tensors: Mapping[str, Tensor]
    stated: Any


class Journal:
    """The finished stages of one scan.

    Args:
        folder: where they are kept; nothing is where it is None.
        meters: of the encoders under scan. What a stage has cost is kept with it, and counted when it is read.
    """

    def __init__(self, folder: Path | None = None, meters: Sequence[TokenMeter] = ()) -> None:
        self.folder = folder
        self.meters = list(meters)

    @classmethod
    def open(cls, root: Path, key: str, meters: Sequence[TokenMeter], *, resume: bool) -> "Journal":
        """The journal of one scan among those of all.

        Args:
            key: tells scans apart that would find different things.
            resume: go on from what is there; it is thrown away otherwise.

        Raises:
            OutputError: there is no writing there. That is no reason not to scan: without `resume` the journal stays
                empty.
        """
        folder = root / key
        try:
            if not resume:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            _forget(root)
        except OSError as error:
            if resume:
                raise OutputError(f"expected to keep a journal in {folder}: {error.strerror}") from error
            return cls()
        return cls(folder, meters)

    def once(
        self,
        stage: str,
        find: Callable[[], Found],
        pack: Callable[[Found], Packed],
        unpack: Callable[[Packed], Found],
    ) -> Found:
        """What a stage finds: read where it is there, found and kept where it is not."""
        kept = self._read(stage)
        if kept is not None:
            return unpack(kept)
        before = self._spent()
        found = find()
        self._write(stage, pack(found), [now - then for now, then in zip(self._spent(), before, strict=True)])
        return found

    def close(self) -> None:
        """The scan is over: nothing is kept."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _spent(self) -> list[int]:
        return [tokens for meter in self.meters for tokens in (meter.forward, meter.backward)]

    def _read(self, stage: str) -> Packed | None:
        if self.folder is None:
            return None
        try:
            with safe_open(self.folder / f"{stage}.safetensors", framework="pt") as file:
                kept = json.loads((file.metadata() or {})["found"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        except (OSError, SafetensorError, KeyError, ValueError):
            return None  # not there, or not whole: the stage runs again
        for meter, forward, backward in zip(self.meters, kept["cost"][::2], kept["cost"][1::2], strict=True):
            meter.forward += forward
            meter.backward += backward
        return Packed(tensors, kept["stated"])

    def _write(self, stage: str, packed: Packed, cost: Sequence[int]) -> None:
        """Whole or not at all: a scan may be killed while it writes."""
        if self.folder is None:
            return
        part = self.folder / f"{stage}.{os.getpid()}.part"
        tensors = {name: tensor.clone().contiguous() for name, tensor in packed.tensors.items()}  # sites share some
        try:
            save_file(tensors, part, {"found": json.dumps({"stated": packed.stated, "cost": cost})})
            part.replace(self.folder / f"{stage}.safetensors")
        except (OSError, SafetensorError):  # a full disk, say: the scan goes on, and cannot be gone on with
            self.close()
            self.folder = None


def _forget(root: Path) -> None:
    for folder in root.iterdir():
        if time.time() - folder.stat().st_mtime > _FORGOTTEN:
            shutil.rmtree(folder, ignore_errors=True)


def pack_sweep(swept: Mapping[Site, SweepResult]) -> Packed:
    """What the sweep saw at each site."""
    return Packed(
        {f"{site}.{name}": value for site, result in swept.items() for name, value in vars(result).items()}, list(swept)
    )


def unpack_sweep(packed: Packed) -> dict[Site, SweepResult]:
    """As `pack_sweep` packed it."""
    names = [field.name for field in fields(SweepResult)]
    return {site: SweepResult(*(packed.tensors[f"{site}.{name}"] for name in names)) for site in packed.stated}


def pack_words(found: Sequence[Word]) -> Packed:
    """Words as their tokens."""
    return Packed({}, list(map(list, found)))


def unpack_words(packed: Packed) -> list[Word]:
    """As `pack_words` packed them."""
    return list(map(tuple, packed.stated))


@dataclass(frozen=True)
class Finds:
    """What one step of the search for phrases came to.

    Args:
        suspects: evidence, judged or not.
        candidates: phrases that were tried for it.
        searched: how they grew.
    """

    suspects: list[Suspect]
    candidates: int
    searched: list[Searched]


def pack_finds(finds: Finds) -> Packed:
    """The finds of one step."""
    pvs = [item.evidence.pv for item in finds.suspects]
    stated = {
        "suspects": [
            {**{name: getattr(item.evidence, name) for name in _STATED}, "log_p": item.log_p} for item in finds.suspects
        ],
        "candidates": finds.candidates,
        "searched": [item.model_dump() for item in finds.searched],
    }
    return Packed({"pv": torch.stack(pvs)} if pvs else {}, stated)


def unpack_finds(packed: Packed) -> Finds:
    """As `pack_finds` packed it."""
    suspects: list[Suspect] = []
    for row, pv in zip(packed.stated["suspects"], packed.tensors.get("pv", ()), strict=True):
        stated = {name: row[name] for name in _STATED} | {"tokens": tuple(row["tokens"])}
        suspects.append(Suspect(Evidence(**stated, pv=pv), row["log_p"]))
    return Finds(suspects, packed.stated["candidates"], [Searched(**item) for item in packed.stated["searched"]])
