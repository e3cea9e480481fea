"""Safetensors files whose header is cut, lies, or is made to cost."""

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from tests.hostile.case import WEIGHTS, Build, Case, write

WHOLE = "whole safetensors"


def packed(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header, and any length said of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def about(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def held(header: object, data: bytes = b"\0" * 8) -> Build:
    return write(WEIGHTS, packed(header, data))


def cut(size: int) -> Build:
    return lambda folder: os.truncate(folder / WEIGHTS, size)


def add_bytes(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0" * 100)


def hide_behind_a_zip(folder: Path) -> None:
    """A file that is a zip archive to one reader and safetensors to another."""
    with zipfile.ZipFile(folder / WEIGHTS, "a") as archive:
        archive.writestr("data.pkl", b"\x80\x02.")


def claim_a_sparse_terabyte(folder: Path) -> None:
    """A terabyte on paper, no block on disk."""
    size = 2**40
    (folder / WEIGHTS).write_bytes(packed({"a": about("F32", (size // 4,), (0, size))}))
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + size)


def say_twice(folder: Path) -> None:
    one = json.dumps(about())
    (folder / WEIGHTS).write_bytes(packed(f'{{"a": {one}, "a": {one}}}'.encode(), b"\0" * 8))


def list_many(folder: Path) -> None:
    header = {f"t{number}": about("F32", (0,), (0, 0)) for number in range(2**17 + 1)}
    (folder / WEIGHTS).write_bytes(packed(header))


CASES = [
    Case("a file of no bytes", cut(0), WHOLE),
    Case("a file of seven bytes", cut(7), WHOLE),
    Case("a length and nothing else", cut(8), WHOLE),
    Case("cut inside the header", cut(100), WHOLE),
    Case("cut inside the tensors", cut(50_000), WHOLE),
    Case("bytes behind the last tensor", add_bytes, WHOLE),
    Case("a zip archive behind the tensors", hide_behind_a_zip, WHOLE),
    Case("compressed", lambda folder: write(WEIGHTS, gzip.compress((folder / WEIGHTS).read_bytes()))(folder), WHOLE),
    Case("a header said to be endless", write(WEIGHTS, packed({}, length=2**64 - 1)), "33,554,432"),
    Case("a header said to be larger than the file", write(WEIGHTS, packed({}, length=10**6)), WHOLE),
    Case("a header of spaces", write(WEIGHTS, packed(b"{}" + b" " * 2**25)), "33,554,432"),
    Case("a header of no bytes", write(WEIGHTS, packed(b"")), WHOLE),
    Case("a header that is no JSON", held(b"tensors: many"), WHOLE),
    Case("a header that is no UTF-8", held(b'{"\xff\xfe": 1}'), WHOLE),
    Case("a header that is a list", held([about()]), WHOLE),
    Case("a header nested without end", held(b'{"a":' * 100_000), WHOLE),
    Case("metadata that is no text", held({"__metadata__": {"format": 1}, "a": about()}), WHOLE),
    Case("a name that stands twice", say_twice, "twice"),
    Case("tensors that overlap", held({"a": about(), "b": about()}), WHOLE),
    Case("a hole between tensors", held({"a": about(), "b": about(offsets=(12, 20))}, b"\0" * 20), WHOLE),
    Case("offsets backwards", held({"a": about(offsets=(8, 0))}), WHOLE),
    Case("negative offsets", held({"a": about(offsets=(-8, 0))}), WHOLE),
    Case("offsets beyond the file", held({"a": about(shape=(2**20,), offsets=(0, 2**22))}), WHOLE),
    Case("offsets that are no whole numbers", held({"a": about(offsets=(0.5, 8.5))}), WHOLE),
    Case("three offsets", held({"a": about(offsets=(0, 4, 8))}), WHOLE),
    Case("a shape that says more than the bytes", held({"a": about(shape=(10**9,))}), WHOLE),
    Case("a shape whose product overflows", held({"a": about(shape=(2**40, 2**40))}), WHOLE),
    Case("a shape whose product overflows to what fits", held({"a": about(shape=(2**63, 2, 2))}), WHOLE),
    Case("a negative shape", held({"a": about(shape=(-2, -1))}), WHOLE),
    Case("a hundred thousand dimensions", held({"a": about(shape=(1,) * 10**5 + (2,))}), "8 dimensions"),
    Case("a giant tensor of no values", held({"a": about(shape=(2**50, 0), offsets=(0, 0))}, b""), "config"),
    Case("an unknown number format", held({"a": about("F33")}), WHOLE),
    Case("more tensors than any model has", list_many, "131,072 tensors"),
    Case("a sparse terabyte", claim_a_sparse_terabyte, "fit into memory", code=3),
]
