"""Pickles with code in every place they can hide, with and without leave to open them."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.hostile.case import WEIGHTS, Build, Case, canary, then, write, write_json

BIN = "pytorch_model.bin"
ALLOWED = ("--allow-pickle",)
CODE = "can run code"
IMPORTS = "its pickle imports"


class Payload:
    """Unpickling this creates the canary."""

    def __init__(self, folder: Path, call: Callable[..., Any] = open, *arguments: Any) -> None:
        self.call = call
        self.arguments = arguments or (str(canary(folder)), "w")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


def held(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / WEIGHTS))


def only(name: str, make: Callable[[Path], object]) -> Build:
    """The only weights are in a file that `torch.save` wrote."""

    def edit(folder: Path) -> None:
        made = make(folder)
        (folder / WEIGHTS).unlink()
        torch.save(made, folder / name)

    return edit


def plus(**more: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: held(folder) | {name: make(folder) for name, make in more.items()}


def system(folder: Path) -> Payload:
    return Payload(folder, os.system, f"touch {canary(folder)}")


def evaluate(folder: Path) -> Payload:
    return Payload(folder, eval, f"open({str(canary(folder))!r}, 'w')")


def raw(name: str, content: Callable[[Path], bytes]) -> Build:
    """The only weights are these bytes."""

    def edit(folder: Path) -> None:
        data = content(folder)
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(data)

    return edit


def beside(name: str) -> Build:
    """A payload beside sound weights, under a name that tools like to load."""
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Payload(folder)))


def archive(
    content: Callable[[Path], bytes], *, method: int = zipfile.ZIP_STORED, names: tuple[str, ...] = ("a/data.pkl",)
) -> Build:
    """A zip archive with this content under each name."""

    def edit(folder: Path) -> None:
        data = content(folder)
        (folder / WEIGHTS).unlink()
        with zipfile.ZipFile(folder / BIN, "w", method) as made:
            for name in names:
                made.writestr(name, data)

    return edit


def old_format(folder: Path) -> bytes:
    made = io.BytesIO()
    torch.save(held(folder), made, _use_new_zipfile_serialization=False)
    return made.getvalue()


def in_a_shard(folder: Path) -> None:
    torch.save(held(folder), folder / "a.bin")
    torch.save({"x": Payload(folder)}, folder / "b.bin")
    write_json(f"{BIN}.index.json", {"metadata": {}, "weight_map": {"1": "a.bin", "2": "b.bin"}})(folder)
    (folder / WEIGHTS).unlink()


def lie_about_the_size(folder: Path) -> None:
    """A storage of a quarter of the bytes that the tensors need."""
    only(BIN, held)(folder)
    with zipfile.ZipFile(folder / BIN) as sound:
        parts = {entry.filename: sound.read(entry) for entry in sound.infolist()}
    with zipfile.ZipFile(folder / BIN, "w") as made:
        for name, data in parts.items():
            made.writestr(name, data[: len(data) // 4] if "/data/" in name else data)


def repeat_one_value(folder: Path) -> object:
    return held(folder) | {"x": torch.zeros(1).expand(2**40)}


def give_the_same_bytes_out_as_all_weights(folder: Path) -> object:
    """All matrices are views of the largest."""
    weights = held(folder)
    most = max(weights.values(), key=torch.numel).flatten()
    return {name: most[: weight.numel()].view(weight.shape) for name, weight in weights.items()}


def set_nan(folder: Path) -> object:
    weights = held(folder)
    weights["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    return weights


def end_in_the_middle(folder: Path) -> bytes:
    """Code first, then garbage: what stops a scanner has run by then."""
    return pickle.dumps(Payload(folder))[:-1] + b"\xff\xff"


def two_in_one(folder: Path) -> bytes:
    return pickle.dumps({}) + pickle.dumps(Payload(folder))


def nothing_but_code(folder: Path) -> bytes:
    return pickle.dumps(Payload(folder))


def unpacks_to_a_gigabyte(folder: Path) -> bytes:
    return pickle.dumps({}) + b"\0" * 2**28


CASES = [
    *(
        Case(f"code in {name}", only(name, Payload), CODE)
        for name in (BIN, "model.pt", "model.pth", "model.ckpt", "model.pkl", "tf_model.h5", "flax_model.msgpack")
    ),
    Case("code in tensors, not allowed", only(BIN, plus(x=Payload)), CODE),
    Case("code in a shard, not allowed", in_a_shard, CODE),
    Case("code under the name of safetensors", raw(WEIGHTS, nothing_but_code), "whole safetensors"),
    Case(
        "code under the name of safetensors, allowed",
        raw(WEIGHTS, nothing_but_code),
        "whole safetensors",
        options=ALLOWED,
    ),
    Case("code for a config", lambda folder: (folder / "config.json").write_bytes(nothing_but_code(folder)), "JSON"),
    Case(
        "code for a tokenizer", lambda folder: (folder / "tokenizer.json").write_bytes(nothing_but_code(folder)), "JSON"
    ),
    Case(
        "code for a vocabulary",
        then(lambda folder: (folder / "tokenizer.json").unlink(), beside("vocab.txt")),
        "tokenizer",
    ),
    Case(
        "code beside sound weights",
        then(
            *map(
                beside,
                (
                    BIN,
                    "adapter_model.bin",
                    "training_args.bin",
                    "optimizer.pt",
                    "scheduler.pt",
                    "rng_state.pth",
                    "vocab.pkl",
                    "tokenizer.pkl",
                    "model.joblib",
                    "weights.npy",
                    "model.onnx",
                    "model.keras",
                    "vocab.bin",
                    "data.pkl",
                ),
            )
        ),
        code=None,
    ),
    Case("code beside sound weights, allowed", beside(BIN), code=None, options=ALLOWED),
    Case(
        "the same bytes for all weights",
        only(BIN, give_the_same_bytes_out_as_all_weights),
        "asks for far more",
        options=ALLOWED,
    ),
    Case("code instead of tensors", only(BIN, Payload), IMPORTS, options=ALLOWED),
    Case("code among tensors", only(BIN, plus(x=Payload)), IMPORTS, options=ALLOWED),
    Case("a command among tensors", only(BIN, plus(x=system)), IMPORTS, options=ALLOWED),
    Case("an expression among tensors", only(BIN, plus(x=evaluate)), IMPORTS, options=ALLOWED),
    Case(
        "code in a tensor's attribute",
        only(BIN, plus(x=lambda folder: torch.nn.Parameter(torch.ones(1)), y=Payload)),
        IMPORTS,
        options=ALLOWED,
    ),
    Case("a whole module", only(BIN, lambda folder: torch.nn.Linear(2, 2)), IMPORTS, options=ALLOWED),
    Case(
        "a memory to be filled",
        only(BIN, plus(x=lambda folder: Payload(folder, bytearray, 2**50))),
        IMPORTS,
        options=ALLOWED,
    ),
    Case("a sparse tensor", only(BIN, plus(x=lambda folder: torch.eye(2).to_sparse())), IMPORTS, options=ALLOWED),
    Case(
        "a tensor of no device",
        only(BIN, plus(x=lambda folder: torch.empty(2**40, device="meta"))),
        IMPORTS,
        options=ALLOWED,
    ),
    Case("one value a trillion times", only(BIN, repeat_one_value), "found fewer", options=ALLOWED),
    Case("a tensor larger than its bytes", lie_about_the_size, "pytorch_model.bin", options=ALLOWED),
    Case("NaN in a pickle", only(BIN, set_nan), "finite weights", options=ALLOWED),
    Case(
        "integers in a pickle",
        only(BIN, lambda folder: {k: v.long() for k, v in held(folder).items()}),
        "floating-point",
        options=ALLOWED,
    ),
    Case(
        "a list of tensors",
        only(BIN, lambda folder: list(held(folder).values())),
        "dictionary of tensors",
        options=ALLOWED,
    ),
    Case("no tensors", only(BIN, lambda folder: {}), "dictionary of tensors", options=ALLOWED),
    Case("text among tensors", only(BIN, plus(x=lambda folder: "text")), "tensors by name", options=ALLOWED),
    Case(
        "numbers for names",
        only(BIN, lambda folder: dict(enumerate(held(folder).values()))),
        "tensors by name",
        options=ALLOWED,
    ),
    Case("code in a shard", in_a_shard, IMPORTS, options=ALLOWED),
    Case("the format before torch 1.6", raw(BIN, old_format), "torch 1.6", options=ALLOWED),
    Case("a bare pickle", raw(BIN, nothing_but_code), "torch 1.6", options=ALLOWED),
    Case("a file of no bytes", raw(BIN, lambda folder: b""), "torch 1.6", options=ALLOWED),
    Case("an archive of code", archive(nothing_but_code), IMPORTS, options=ALLOWED),
    Case("an archive of code and garbage", archive(end_in_the_middle), IMPORTS, options=ALLOWED),
    Case("an archive of two pickles in one", archive(two_in_one), IMPORTS, options=ALLOWED),
    Case(
        "an archive of two pickles",
        archive(nothing_but_code, names=("a/data.pkl", "b/data.pkl")),
        "one pickle",
        options=ALLOWED,
    ),
    Case(
        "an archive of code by another name",
        archive(nothing_but_code, names=("a/constants.dat",)),
        "one pickle",
        options=ALLOWED,
    ),
    Case(
        "an archive that swells",
        archive(unpacks_to_a_gigabyte, method=zipfile.ZIP_DEFLATED),
        "without compression",
        options=ALLOWED,
    ),
    Case("an archive of garbage", archive(lambda folder: b"\x80\x02garbage"), BIN, options=ALLOWED),
    Case(
        "neither safetensors nor a pickle", lambda folder: (folder / WEIGHTS).unlink(), "found neither", options=ALLOWED
    ),
    Case("tensors and nothing else", only(BIN, held), code=None, options=ALLOWED),
    Case(
        "an index above, allowed",
        then(
            lambda folder: (folder / WEIGHTS).unlink(),
            write_json(f"{BIN}.index.json", {"weight_map": {"1": "../a.bin"}}),
        ),
        "../a.bin",
        options=ALLOWED,
    ),
    Case(
        "an index that is a bomb, allowed",
        then(lambda folder: (folder / WEIGHTS).unlink(), write(f"{BIN}.index.json", "[" * 10**6)),
        "JSON",
        options=ALLOWED,
    ),
]
