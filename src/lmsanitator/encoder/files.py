"""A checkpoint's files: found, fetched and checked while nothing of them is loaded yet.

A stranger's folder may point elsewhere: to pickles, to code on the hub, to files outside itself. What does is refused
here, before transformers gets to see it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)

from lmsanitator.errors import CheckpointError, UnsupportedError

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_TEXT_MODELS = (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    | MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    | MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.keys()
)
MAX_JSON_BYTES = 64 * 2**20  # a tokenizer.json of 250,000 tokens has 17 MiB
_MAX_CONFIG_BYTES = 2**20
_LISTED = re.compile(r"(^|_)(layers?|labels?|depths?|blocks?|stages?|types?|experts?)(_|$)")
_MAX_LISTED = 2**17


def locate(source: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is fetched into the hub's own cache, needed files only."""
    folder = Path(source)
    try:
        if folder.is_dir():
            return folder
        if folder.exists():
            raise CheckpointError(f"expected a checkpoint directory or a hub id, got a file: {source}")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise CheckpointError(f"expected a checkpoint directory, cannot open {source}: {error.strerror}") from error
    hub_id = _HUB_ID.fullmatch(str(source))
    if hub_id is None:
        raise CheckpointError(f"expected a checkpoint directory or a hub id (org/name), found neither: {source}")
    return fetch(hub_id["repo"], hub_id["revision"])


def fetch(repo: str, revision: str | None) -> Path:
    """Fetch the safetensors, config and tokenizer files of a hub repository."""
    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's errors, those of its HTTP client, those of the disk
        raise CheckpointError(f"expected hub model {repo}, could not fetch it: {one_line(error)}") from error


def read_config(folder: Path) -> PreTrainedConfig:
    """Read config.json; the architecture must be one that transformers itself implements."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"expected config.json in {folder}, found none")
    raw = read_json_object(path, _MAX_CONFIG_BYTES)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(f"expected an architecture that transformers knows, config.json has model_type {kind!r}")
    check_config(raw)
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(raw)
    except Exception as error:  # a config class may raise anything on hostile values
        raise CheckpointError(f"expected a valid {kind} config.json: {one_line(error)}") from error
    if config.is_encoder_decoder:
        raise UnsupportedError(f"expected an encoder or a decoder, {kind} is an encoder-decoder")
    if kind not in _TEXT_MODELS:  # others may fetch parts of themselves, a vision backbone for instance
        raise UnsupportedError(f"expected a text encoder or decoder, {kind} is neither")
    if raw.get("quantization_config") is not None:
        raise UnsupportedError("expected plain weights, config.json says they are quantized")
    if (folder / "adapter_config.json").exists():
        raise UnsupportedError(
            "expected one set of weights, found adapter_config.json beside it: merge the adapter first"
        )
    return config


def check_config(raw: dict[str, Any]) -> None:
    """Refuse what a config can do besides describing a model: name other files or code, or blow up when it is read
    (config classes write out one entry for each label, layer or block)."""
    listed = 0
    for path, value in _leaves(raw):
        if "_implementation" in path and "/" in str(value):
            raise CheckpointError(f"expected an attention of transformers itself, config.json names the code {value!r}")
        if path == "transformers_weights":
            raise CheckpointError(f"expected weights in model.safetensors, config.json names the file {value!r}")
        if isinstance(value, int) and value > 0 and _LISTED.search(path.rpartition(".")[2]):
            listed += value
            if listed > _MAX_LISTED:
                raise CheckpointError(
                    f"expected at most {_MAX_LISTED:,} layers, labels and blocks, {path} is {value:,}"
                )


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or the shards its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        found = f"only {pickles[0]}, which can run code when opened" if pickles else "none"
        raise CheckpointError(f"expected safetensors weights in {folder}, found {found}")
    weight_map = read_json_object(index, MAX_JSON_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"expected weight_map with file names in {index.name}, got something else")
    shards = [folder / name for name in sorted(set(weight_map.values()))]
    for shard in shards:
        if shard.parent != folder or not shard.is_file():
            raise CheckpointError(f"expected the shard {shard.name} inside {folder}, it is not there")
    return shards


def check_headers(shards: list[Path]) -> tuple[int, int]:
    """Validate every safetensors header against its file; returns the number of stored tensors and of their values."""
    stored = values = 0
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    stored += 1
                    values += torch.Size(tensors.get_slice(name).get_shape()).numel()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"expected a whole safetensors file, {shard.name} is not: {one_line(error)}"
            ) from error
    return stored, values


def _leaves(raw: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All values in nested JSON with their dotted paths; the items of a list have the path of the list."""
    waiting: list[tuple[str, Any]] = list(raw.items())
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(path, inner) for inner in value]
        else:
            yield path, value


def check_bytes(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size > limit:
        raise CheckpointError(f"expected {path.name} below {limit:,} bytes, it has {size:,}")


def read_json_object(path: Path, limit: int) -> dict[str, Any]:
    check_bytes(path, limit)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"expected JSON in {path.name}: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"expected a JSON object in {path.name}, got {type(raw).__name__}")
    return raw


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
