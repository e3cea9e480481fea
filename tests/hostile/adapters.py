"""LoRA adapters that lie about themselves, lead elsewhere, or are made to cost."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.hostile.case import WEIGHTS, Build, Case, canary, edit_json, outside, then, write
from tests.hostile.headers import about, packed
from tests.hostile.paths import ADAPTER
from tests.hostile.pickles import Payload

LORA = "adapter_model.safetensors"
QUERY = "base_model.model.encoder.layer.0.attention.self.query"
A, B = f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight"


def adapted(*steps: Build) -> Build:
    """What was the checkpoint is a folder inside it, the adapter's encoder; then `steps` break the adapter."""

    def edit(folder: Path) -> None:
        files = list(folder.iterdir())
        (folder / "base").mkdir()
        for file in files:
            file.rename(folder / "base" / file.name)
        said = {"peft_type": "LORA", "base_model_name_or_path": str(folder / "base"), "target_modules": ["query"]}
        write(ADAPTER, "{}")(folder)
        setting(**said, r=4, lora_alpha=8)(folder)
        save_file({A: torch.full((4, 32), 0.1), B: torch.full((32, 4), 0.1)}, folder / LORA)
        then(*steps)(folder)

    return edit


def setting(**settings: Any) -> Build:
    return edit_json(ADAPTER, lambda raw: raw.update(settings))


def held(change: Callable[[dict[str, torch.Tensor]], object]) -> Build:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / LORA)
        change(tensors)
        save_file(tensors, folder / LORA)

    return edit


def put(name: str, *shape: int) -> Build:
    return held(lambda tensors: tensors.update({name: torch.full(shape, 0.1)}))


def climb(folder: Path) -> None:
    """A base above the folder, by a path around a corner."""
    (folder.parent / "secret").mkdir()
    outside(folder, "secret/model.safetensors")
    setting(base_model_name_or_path=f"{folder}/base/../../secret")(folder)


def name_a_module(folder: Path) -> None:
    """What PEFT imports to find the class of the encoder."""
    code = f"open({str(canary(folder))!r}, 'w').close()\nclass Model: ...\n"
    (folder / "evil.py").write_text(code)
    mapping = {"base_model_class": "Model", "parent_library": "evil"}
    setting(auto_mapping=mapping)(folder)


def pickle_only(folder: Path) -> None:
    (folder / LORA).unlink()
    torch.save(Payload(folder), folder / "adapter_model.bin")


def pickle_beside(folder: Path) -> None:
    torch.save(Payload(folder), folder / "adapter_model.bin")


def claim_a_giant_rank(folder: Path) -> None:
    """Gigabytes on paper, no block on disk, and both files agree."""
    rank = 2**23
    size = rank * 32 * 4
    header = {A: about("F32", (rank, 32), (0, size)), B: about("F32", (32, rank), (size, 2 * size))}
    (folder / LORA).write_bytes(packed(header))
    os.truncate(folder / LORA, (folder / LORA).stat().st_size + 2 * size)
    setting(r=rank)(folder)


def adapt_an_adapter(folder: Path) -> None:
    (folder / "base" / "config.json").unlink()
    write(f"base/{ADAPTER}", (folder / ADAPTER).read_bytes())(folder)


CASES = [
    Case("sound", adapted(), code=None),
    Case("a rank of a billion", adapted(setting(r=10**9)), "shape (1000000000, 32)"),
    Case("a rank beyond any integer", adapted(setting(r=10**400)), "lora_A"),
    Case("a rank below zero", adapted(setting(r=-1)), "rank r"),
    Case("a giant rank in both files", adapted(claim_a_giant_rank), "8,388,608"),
    Case("a rank of zero", adapted(setting(rank_pattern={"a": 1}), put(A, 0, 32), put(B, 32, 0)), "rank from 1"),
    Case("an alpha beyond any float", adapted(setting(lora_alpha=10**400)), "lora_alpha"),
    Case("an alpha that is a list without end", adapted(setting(lora_alpha=[[1] * 10**5])), "lora_alpha"),
    Case("an infinite alpha", adapted(setting(lora_alpha=float("inf"))), "lora_alpha"),
    Case("B of another shape", adapted(put(B, 8, 4)), "shape (32, 4)"),
    Case("A without dimensions", adapted(setting(rank_pattern={"a": 1}), put(A)), "lora_A"),
    Case("half a pair", adapted(held(lambda tensors: tensors.pop(B))), "alone"),
    Case("NaN in A", adapted(held(lambda tensors: tensors[A].fill_(float("nan")))), "finite weights"),
    Case("weights that overflow", adapted(held(lambda tensors: [t.fill_(1e30) for t in tensors.values()])), "finite"),
    Case("stored as integers", adapted(held(lambda tensors: tensors.update({A: tensors[A].int()}))), "floating-point"),
    Case("a module that is not there", adapted(put(f"{QUERY}s.lora_A.weight", 4, 32)), "alone"),
    Case("a tensor that is not there", adapted(put("base_model.model.encoder.evil", 1)), "has none for"),
    Case("a name for the terminal", adapted(put("base_model.model.encoder.\x1b[2Jclean\nverdict", 1)), "none for"),
    Case("names without end", adapted(put("base_model.model.encoder." + "a" * 10**5, 1)), "none for"),
    Case(
        "the same module under two names",
        adapted(put(A.replace("encoder", "bert.encoder"), 4, 32), put(B.replace("encoder", "bert.encoder"), 32, 4)),
        "before them or none",
    ),
    Case("a weight that is replaced beneath its pair", adapted(put(f"{QUERY}.weight", 32, 32)), "is neither"),
    Case("a header that is none", adapted(write(LORA, b"\0" * 7)), "whole safetensors"),
    Case("a pickle alone", adapted(pickle_only), "can run code"),
    Case("a pickle alone, pickles allowed", adapted(pickle_only), "can run code", options=("--allow-pickle",)),
    Case("a pickle beside the weights", adapted(pickle_beside), code=None),
    Case("no weights", adapted(lambda folder: (folder / LORA).unlink()), "found none"),
    Case("a module to import", adapted(name_a_module), code=None),
    Case("a class to import at runtime", adapted(setting(runtime_config={"ephemeral": "os.system"})), code=None),
    Case("a pattern without end", adapted(setting(target_modules="(a+)+$")), "by name", code=3),
    Case("a pattern among the names", adapted(setting(target_modules=["(q|q)*uery"])), "list of names"),
    Case("a pattern among the modules to save", adapted(setting(modules_to_save=["(.*)*x"])), "list of names"),
    Case("names of modules without end", adapted(setting(modules_to_save=["a"] * 10**5)), "1,024 names"),
    Case("modules that PEFT would pass over", adapted(setting(target_modules=["value"])), "target_modules"),
    Case("a variant in an object nested far", adapted(setting(alpha_pattern={"a": [[[[]]]]})), "plain LoRA", code=3),
    Case("an encoder above, around a corner", adapted(climb), "found none"),
    Case("an encoder that is a device", adapted(setting(base_model_name_or_path="/dev/zero")), "local folder"),
    Case("an encoder on the hub", adapted(setting(base_model_name_or_path="someone/else")), "someone/else"),
    Case("an encoder with an odd path", adapted(setting(base_model_name_or_path="a\0b")), "local folder"),
    Case("an encoder that is an adapter", adapted(adapt_an_adapter), "found none"),
    Case("an encoder that is broken", adapted(write(f"base/{WEIGHTS}", b"PK\x03\x04")), "whole safetensors"),
    Case(
        "an encoder whose weights lie outside",
        adapted(
            lambda folder: (folder / "base" / WEIGHTS).rename(folder / WEIGHTS),
            lambda folder: (folder / "base" / WEIGHTS).symlink_to(f"../{WEIGHTS}"),
        ),
        "all files inside",
    ),
]
