"""A checkpoint's files: found, fetched and checked while nothing of them is loaded yet.

A stranger's folder may point elsewhere: to pickles, to code on the hub, to files outside itself. What does is refused
here, before transformers gets to see it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)

from lmsanitator.encoder.limits import MAX_CONFIG_BYTES, MAX_LISTED, MAX_SHARDS, MAX_TEXT_BYTES
from lmsanitator.encoder.quiet import one_line, refusing
from lmsanitator.errors import CheckpointError, UnsupportedError

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
_ADAPTER = "adapter_config.json"
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_PICKLES = ("pytorch_model*.bin",)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_TEXT_MODELS = (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    | MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    | MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.keys()
)
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[\w-][\w.-]{0,200}", re.ASCII)
_LISTED = re.compile(r"(^|_)(layers?|labels?|depths?|blocks?|stages?|types?|experts?)(_|$)")


def locate(source: str | Path, *, pickles: bool = False) -> Path:
    """The local folder of a checkpoint; a hub id is fetched into the hub's own cache, needed files only.

    Args:
        pickles: fetch pickled weights too, from a repository that has no others.
    """
    folder = Path(source)
    try:
        str(source).encode()
        if folder.is_dir():
            return folder
        if folder.exists():
            raise CheckpointError(f"expected a checkpoint directory or a hub id, got a file: {source}")
    except UnicodeEncodeError as error:  # reports are UTF-8 and name what was scanned
        raise CheckpointError(f"expected a path in UTF-8, got {str(source)!r}") from error
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise CheckpointError(f"expected a checkpoint directory, cannot open {source}: {error.strerror}") from error
    hub_id = _HUB_ID.fullmatch(str(source))
    if hub_id is None:
        raise CheckpointError(f"expected a checkpoint directory or a hub id (org/name), found neither: {source}")
    folder = fetch(hub_id["repo"], hub_id["revision"])
    if pickles and not has_safetensors(folder):
        return fetch(hub_id["repo"], hub_id["revision"], more=_HUB_PICKLES)
    return folder


def fetch(repo: str, revision: str | None, *, more: Sequence[str] = ()) -> Path:
    """Fetch the safetensors, config and tokenizer files of a hub repository, none of them from its folders."""
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=[*_HUB_FILES, *more], ignore_patterns=["*/*"]
            )
        )
    except Exception as error:  # the hub's errors, those of its HTTP client, those of the disk
        raise CheckpointError(f"expected hub model {repo}, could not fetch it: {one_line(error)}") from error


def read_config(folder: Path) -> PreTrainedConfig:
    """Read config.json; the architecture must be one that transformers itself implements."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"expected config.json in {folder}, found none")
    raw = read_json_object(path, MAX_CONFIG_BYTES)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(f"expected an architecture that transformers knows, config.json has model_type {kind!r}")
    check_config(raw)
    with refusing(f"a valid {kind} config.json"):
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(raw)
    if config.is_encoder_decoder:
        raise UnsupportedError(f"expected an encoder or a decoder, {kind} is an encoder-decoder")
    if kind not in _TEXT_MODELS:  # others may fetch parts of themselves, a vision backbone for instance
        raise UnsupportedError(f"expected a text encoder or decoder, {kind} is neither")
    if raw.get("quantization_config") is not None:
        raise UnsupportedError("expected plain weights, config.json says they are quantized")
    if (folder / _ADAPTER).exists():
        raise UnsupportedError(f"expected one set of weights, found {_ADAPTER} beside it: merge the adapter first")
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
            if listed > MAX_LISTED:
                raise CheckpointError(f"expected at most {MAX_LISTED:,} layers, labels and blocks, {path} is {value:,}")


def has_safetensors(folder: Path) -> bool:
    """Whether there are weights that can be read without running anything."""
    return any((folder / name).is_file() for name in (_SINGLE, _INDEX))


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or the shards its index names."""
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if (folder / _INDEX).is_file():
        return read_index(folder / _INDEX, ".safetensors")
    for path in folder.glob("*.gguf"):
        raise UnsupportedError(f"expected safetensors weights in {folder}, found only {path.name}, which are quantized")
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    found = f"only {pickles[0]}, which can run code when opened" if pickles else "none"
    raise CheckpointError(f"expected safetensors weights in {folder}, found {found}")


def read_index(index: Path, suffix: str) -> list[Path]:
    """The files that an index spreads the weights over, all of them beside it."""
    weight_map = read_json_object(index, MAX_TEXT_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"expected weight_map with file names in {index.name}, got something else")
    names = sorted(set(weight_map.values()))
    if len(names) > MAX_SHARDS:
        raise CheckpointError(f"expected at most {MAX_SHARDS:,} shards in {index.name}, got {len(names):,}")
    for name in names:
        if not _SHARD.fullmatch(name) or not name.endswith(suffix):
            raise CheckpointError(f"expected shards *{suffix} inside {index.parent}, {index.name} names {name!r:.80}")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"expected the shard {name} inside {index.parent}, it is not there")
    return [index.parent / name for name in names]


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
    """Refuse a file of more than `limit` bytes."""
    size = path.stat().st_size
    if size > limit:
        raise CheckpointError(f"expected {path.name} below {limit:,} bytes, it has {size:,}")


def read_json_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes."""
    try:
        check_bytes(path, limit)
        return parse_object(path.read_bytes(), path.name)
    except OSError as error:
        raise CheckpointError(f"expected JSON in {path.name}, cannot read it: {error.strerror}") from error


def parse_object(text: bytes | str, where: str) -> dict[str, Any]:
    """The JSON object in a text. Two values for one key are refused: the library that reads the same text
    after us might take the other one. So is NaN, which compares with nothing."""
    try:
        decoded = text if isinstance(text, str) else text.decode()
        raw = json.loads(decoded, object_pairs_hook=_one_value_a_key, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"expected JSON in {where}: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"expected a JSON object in {where}, got {type(raw).__name__}")
    return raw


def _one_value_a_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r:.80} stands twice in one object")
    return made


def _no_number(text: str) -> float:
    if text == "NaN":
        raise ValueError("NaN is no number")
    return float(text)
