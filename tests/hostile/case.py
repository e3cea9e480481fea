"""One hostile or broken checkpoint, and the small tools the families are built with."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Build = Callable[[Path], object]
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """What is done to a sound BERT checkpoint, and what the command line then has to say.

    Args:
        name: what is wrong, in a few words.
        build: breaks the checkpoint in the folder it is given; beside that folder it may put what lies outside.
        says: a part of the one line.
        code: the exit code; None where the checkpoint opens all the same, and the hostile part of it is left alone.
        options: of the command line.
    """

    name: str
    build: Build
    says: str = ""
    code: int | None = 2
    options: tuple[str, ...] = ()


def canary(folder: Path) -> Path:
    """The file that a payload makes: code ran if it is there."""
    return folder.parent / "canary"


def outside(folder: Path, name: str, content: bytes = b"{}") -> Path:
    """A file beside the checkpoint's folder, that no checkpoint may lead to."""
    path = folder.parent / name
    path.write_bytes(content)
    return path


def write(name: str, content: bytes | str) -> Build:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def write_json(name: str, value: object) -> Build:
    return write(name, json.dumps(value))


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Build:
    def edit(folder: Path) -> None:
        raw = json.loads((folder / name).read_text(encoding="utf-8"))
        change(raw)
        (folder / name).write_text(json.dumps(raw), encoding="utf-8")

    return edit


def config(**changes: Any) -> Build:
    return edit_json("config.json", lambda raw: raw.update(changes))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Build:
    def edit(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS, {"format": "pt"})

    return edit


def remove(*names: str) -> Build:
    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def then(*steps: Build) -> Build:
    def edit(folder: Path) -> None:
        for step in steps:
            step(folder)

    return edit


def spread(folder: Path, names: Sequence[str]) -> None:
    """Write an index that says the weights lie in these files."""
    weight_map = {str(number): name for number, name in enumerate(names)}
    write_json(f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": weight_map})(folder)
    (folder / WEIGHTS).unlink(missing_ok=True)
