"""The headers of safetensors files, read before any tensor is."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lmsanitator.encoder.files import parse_object
from lmsanitator.encoder.limits import MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_TENSORS
from lmsanitator.encoder.quiet import one_line
from lmsanitator.errors import CheckpointError, UnsupportedError
from lmsanitator.memory import total_memory

_LENGTH_BYTES = 8
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Stored:
    """What the files hold: the number of tensors, that of their values, the names of those that are no floats, and of
    all."""

    tensors: int
    values: int
    odd: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


def check_headers(shards: list[Path]) -> Stored:
    """Validate every safetensors header against its file.

    Raises:
        CheckpointError: a header that is too large, lies, or says more of tensors than can be.
    """
    tensors: dict[str, Any] = {}
    for shard in shards:
        header = _read_header(shard)
        twice = sorted(tensors.keys() & header.keys())
        if twice:
            raise CheckpointError(f"expected each tensor in one file, {shard.name} holds {twice[0]!r:.80} again")
        tensors |= header
        if len(tensors) > MAX_TENSORS:
            raise CheckpointError(f"expected at most {MAX_TENSORS:,} tensors, {shard.name} has more")
    values = sum(prod(about["shape"]) for about in tensors.values())
    odd = frozenset(name for name, about in tensors.items() if about["dtype"] not in _FLOATS)
    return Stored(len(tensors), values, odd, frozenset(tensors))


def _read_header(shard: Path) -> dict[str, dict[str, Any]]:
    """The header as JSON, once the safetensors library has agreed to it: offsets, shapes and the size of the file."""
    try:
        size, memory = shard.stat().st_size, total_memory()
        if size > memory:  # files are mapped whole
            raise UnsupportedError(
                f"expected weights that fit into memory, {shard.name} has {size:,} bytes of {memory:,}"
            )
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"expected a whole safetensors file, the header of {shard.name} is said to have {length:,} bytes, "
                    f"more than {MAX_HEADER_BYTES:,}"
                )
            text = file.read(length)
        with safe_open(shard, framework="pt"):
            header = parse_object(text, f"the header of {shard.name}")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"expected a whole safetensors file, {shard.name} is not: {one_line(error)}") from error
    except (MemoryError, RuntimeError) as error:  # the one of safetensors, the other of torch, where mapping fails
        raise UnsupportedError(
            f"expected weights that fit into memory, {shard.name} cannot be mapped: {one_line(error)}"
        ) from error
    header.pop("__metadata__", None)
    for name, about in header.items():
        dimensions = len(about["shape"])
        if dimensions > MAX_DIMENSIONS:
            raise CheckpointError(f"expected at most {MAX_DIMENSIONS} dimensions, {name!r:.80} has {dimensions:,}")
    return header
