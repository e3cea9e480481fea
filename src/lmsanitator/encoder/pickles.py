"""Weights in a torch archive, for those who ask for them: looked through, then opened by a reader that runs nothing.

Three gates, each closed to what the next one might miss. The archive must be what `torch.save` writes: stored without
compression, so that it cannot grow, and one pickle inside. picklescan lists what that pickle would import, and only
what a dictionary of tensors needs is let through. `torch.load(weights_only=True)` then builds the tensors.
"""

import logging
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from lmsanitator.encoder.files import read_index
from lmsanitator.encoder.headers import Stored
from lmsanitator.encoder.limits import MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_TENSORS
from lmsanitator.encoder.quiet import one_line, refusing
from lmsanitator.errors import CheckpointError, UsageError

_SINGLE, _INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_NEEDED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", f"{kind}Storage") for kind in _STORAGES),
}


def read_pickles(folder: Path) -> dict[str, Tensor]:
    """The tensors of pytorch_model.bin, or of the archives its index names, by name.

    Raises:
        CheckpointError: there is none, or one that is more than a dictionary of tensors.
        UsageError: picklescan is not installed.
    """
    tensors: dict[str, Tensor] = {}
    for path in _find(folder):
        check_archive(path)
        check_imports(path)
        with refusing(f"a dictionary of tensors in {path.name}"):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        check_tensors(held, path.name)
        tensors |= held
    return tensors


def stored(tensors: dict[str, Tensor]) -> Stored:
    """The same facts as the headers of safetensors files give. Tensors may share the bytes they lie in: those count
    once, however many weights a few bytes are given out as."""
    odd = frozenset(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    values: dict[int, int] = {}
    for tensor in tensors.values():
        place = tensor.untyped_storage().data_ptr()
        values[place] = max(values.get(place, 0), tensor.numel())
    return Stored(len(tensors), sum(values.values()), odd, frozenset(tensors))


def _find(folder: Path) -> list[Path]:
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if (folder / _INDEX).is_file():
        return read_index(folder / _INDEX, ".bin")
    raise CheckpointError(f"expected safetensors weights or {_SINGLE} in {folder}, found neither")


def check_archive(path: Path) -> None:
    """Refuse what is no zip archive as torch writes it, above all one that unpacks to more than it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"expected {path.name} as torch 1.6 and later write it: {one_line(error)}; save the weights anew"
        ) from error
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(f"expected at most {MAX_TENSORS:,} entries in {path.name}, found {len(entries):,}")
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1]
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"expected {path.name} without compression, it unpacks to more than it is")
    pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
    if len(pickles) != 1 or pickles[0].file_size > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"expected one pickle of at most {MAX_HEADER_BYTES:,} bytes in {path.name}, found {len(pickles)}"
        )


def check_imports(path: Path) -> None:
    """Refuse a pickle that would import anything a dictionary of tensors does not need."""
    try:
        from picklescan.scanner import scan_file_path
    except ImportError as error:
        raise UsageError(
            "expected picklescan, which opening pickles needs: pip install 'lmsanitator[pickle]'"
        ) from error
    logging.getLogger("picklescan").setLevel(logging.CRITICAL + 1)  # what it finds is raised here
    with refusing(f"a pickle in {path.name} that can be looked through"):
        result = scan_file_path(str(path))
    foreign = sorted({(found.module, found.name) for found in result.globals} - _NEEDED)
    if foreign:
        raise CheckpointError(f"expected tensors only in {path.name}, its pickle imports {'.'.join(foreign[0])!r:.80}")
    if result.scan_err or result.issues_count:
        raise CheckpointError(f"expected a pickle in {path.name} that can be looked through, it is broken")


def check_tensors(held: object, name: str) -> None:
    """Refuse what is no plain dictionary of dense tensors, each no larger than the bytes behind it."""
    if not isinstance(held, dict) or not held:
        raise CheckpointError(f"expected a dictionary of tensors in {name}, got {type(held).__name__}")
    if len(held) > MAX_TENSORS:
        raise CheckpointError(f"expected at most {MAX_TENSORS:,} tensors in {name}, found {len(held):,}")
    for key, tensor in held.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"expected tensors by name in {name}, {key!r:.80} is {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.ndim > MAX_DIMENSIONS:
            raise CheckpointError(f"expected dense tensors in {name}, {key!r:.80} is none")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"expected as many bytes in {name} as {key!r:.80} has values, found fewer")
