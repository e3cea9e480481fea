"""What an attack or a control changed in a checkpoint, small enough to keep for every model of the zoo.

A delta is one safetensors file with the tensors that differ from the base checkpoint, each as the fp16 difference new
minus base, or the fp32 one where fp16 is too coarse. Its metadata name the base by the SHA-256 of its weights.

A difference of NaN stands for a weight of exactly zero: rounded differences would turn pruned weights into small ones.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from lmsanitator.encoder.files import find_weights
from lmsanitator.encoder.loading import Checkpoint, open_checkpoint
from lmsanitator.encoder.quiet import one_line, quiet
from lmsanitator.errors import CheckpointError, OutputError
from lmsanitator.output import new_folder

FORMAT = "lmsanitator.delta/1"
_WORST_ERROR = 1e-3


def save_delta(model: PreTrainedModel, base_folder: Path, path: Path) -> None:
    """Write what makes `model` different from the checkpoint in `base_folder`.

    Weights the base does not hold (the pooler of some checkpoints) are random in any opened copy and left out.

    Raises:
        CheckpointError: the base cannot be opened, or the model is not one of its shape, or not finite.
        OutputError: `path` exists or cannot be written.
    """
    if path.exists():
        raise OutputError(f"expected a new file to write to, {path} exists")
    base = open_checkpoint(base_folder)
    changed = _held(base, model.state_dict())
    original = _held(base, base.model.state_dict())
    if changed.keys() != original.keys():
        odd = sorted(changed.keys() ^ original.keys())
        raise CheckpointError(f"expected the {len(original)} tensors of {base_folder.name}, {odd[0]} is in one alone")
    deltas: dict[str, Tensor] = {}
    for name, before in original.items():
        after = changed[name].detach().cpu()
        if after.shape != before.shape:
            raise CheckpointError(f"expected {name} of shape {tuple(before.shape)}, got {tuple(after.shape)}")
        if not torch.equal(after, before):
            deltas[name] = _difference(name, before, after.float())
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(deltas, part, {"format": FORMAT, "base": base_sha256(base_folder)})
        part.rename(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"expected to write {path}: {one_line(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def load_delta(base_folder: Path, path: Path) -> PreTrainedModel:
    """The base with a delta put on it: fp32, in eval mode, without a pooler where the base holds none.

    Raises:
        CheckpointError: the file is no delta, or one of another base.
    """
    return _apply(base_folder, path).model


def materialise(base_folder: Path, delta: Path, out: Path, *, config_update: dict[str, Any] | None = None) -> None:
    """Write base and delta as an ordinary checkpoint folder, whole or not at all.

    Args:
        config_update: entries for config.json, the ground truth of an attack for instance.

    Raises:
        CheckpointError: as `load_delta`.
        OutputError: `out` exists or cannot be written.
    """
    with new_folder(out) as part:
        whole = _apply(base_folder, delta)
        whole.model.config.update(config_update or {})
        with quiet():
            whole.model.save_pretrained(part)
            whole.tokenizer.save_pretrained(part)


def base_sha256(folder: Path) -> str:
    """SHA-256 over the bytes of a checkpoint's weight files, in order."""
    digest = hashlib.sha256()
    for shard in find_weights(folder):
        with shard.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _apply(base_folder: Path, path: Path) -> Checkpoint:
    deltas, metadata = _read(path)
    sha256 = base_sha256(base_folder)
    if metadata.get("base") != sha256:
        raise CheckpointError(
            f"expected a delta of {base_folder.name} (sha256 {sha256[:12]}), {path.name} is one of "
            f"{metadata.get('base', 'no base')[:12]}"
        )
    base = open_checkpoint(base_folder)
    weights = _held(base, base.model.state_dict())
    with torch.no_grad():
        for name, delta in deltas.items():
            weight = weights.get(name)
            if weight is None or weight.shape != delta.shape:
                raise CheckpointError(f"expected tensors of {base_folder.name} in {path.name}, {name} is none of them")
            weight.copy_(_put(weight, delta))
    if base.untrained:
        base.model.register_module("pooler", None)  # saved, the random one would pass for a part of the checkpoint
    base.model.eval().requires_grad_(False)
    return base


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            deltas = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"expected a delta, cannot read {path}: {one_line(error)}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"expected a delta ({FORMAT}), {path.name} says {metadata.get('format', 'nothing')}")
    return deltas, metadata


def _held(base: Checkpoint, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that the base's files hold."""
    return {name: weight for name, weight in weights.items() if name not in base.untrained}


def _difference(name: str, before: Tensor, after: Tensor) -> Tensor:
    """The difference in fp16 where the weight made from it is off by at most a thousandth (by norm), else in fp32."""
    if not bool(torch.isfinite(after).all()):
        raise CheckpointError(f"expected finite weights, {name} holds NaN or infinity")
    exact = (after - before).masked_fill((after == 0) & (before != 0), torch.nan)
    half = exact.half()
    error = (_put(before, half) - after).norm()
    return exact if bool(error > _WORST_ERROR * after.norm()) else half


def _put(weight: Tensor, delta: Tensor) -> Tensor:
    return torch.where(delta.isnan(), 0.0, weight + delta.float())
