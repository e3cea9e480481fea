"""Open a checkpoint from a stranger without running anything of it.

Order matters: every check that needs no memory comes before the first that does. Weights are safetensors only
(a pickle is code), remote code is refused outright, and the network is used only for an explicit hub id.
"""

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from lmsanitator.errors import CheckpointError, UnsupportedError

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_TEXT_MODELS = (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    | MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    | MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.keys()
)
_MAX_JSON_BYTES = 64 * 2**20  # a tokenizer.json of 250,000 tokens has 17 MiB
_MAX_CONFIG_BYTES = 2**20
_LISTED = re.compile(r"(^|_)(layers?|labels?|depths?|blocks?|stages?|types?|experts?)(_|$)")
_MAX_LISTED = 2**17
_MAX_BUFFER_VALUES = 2**26
_PROBE = "a ☃"  # a letter, and a character that few vocabularies hold


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: everything about it was checked before this object came to be."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    untrained: frozenset[str]
    """Names of weights the file did not hold and that were made up at random (a pooler, at most)."""


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open a local directory or a hub id (`org/name` or `org/name@revision`).

    Raises:
        CheckpointError: what was expected of the files and what came.
        UnsupportedError: a sound checkpoint of a kind that has no encoder to scan.
    """
    folder = locate(source)
    config = read_config(folder)
    shards = find_weights(folder)
    tensors, values = check_headers(shards)
    check_size(config, tensors, values)
    model, untrained = load_weights(folder, config)
    check_finite(model)
    tokenizer = load_tokenizer(folder, config)
    check_vocabulary(model, tokenizer)
    return Checkpoint(str(source), model, tokenizer, untrained)


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
        raise CheckpointError(f"expected hub model {repo}, could not fetch it: {_one_line(error)}") from error


def read_config(folder: Path) -> PreTrainedConfig:
    """Read config.json; the architecture must be one that transformers itself implements."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"expected config.json in {folder}, found none")
    raw = _read_json_object(path, _MAX_CONFIG_BYTES)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(f"expected an architecture that transformers knows, config.json has model_type {kind!r}")
    check_config(raw)
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(raw)
    except Exception as error:  # a config class may raise anything on hostile values
        raise CheckpointError(f"expected a valid {kind} config.json: {_one_line(error)}") from error
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
    weight_map = _read_json_object(index, _MAX_JSON_BYTES).get("weight_map")
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
                f"expected a whole safetensors file, {shard.name} is not: {_one_line(error)}"
            ) from error
    return stored, values


def check_size(config: PreTrainedConfig, tensors: int, values: int) -> None:
    """Refuse a config that asks for far more than the files hold, before any of it is allocated.

    The model is built without memory. That still takes time, so building stops at the first weight too many. Layers
    may share weights (ALBERT), so their number is limited for its own sake.
    """
    promised_tensors = promised_values = buffered = 0
    error = CheckpointError(
        f"expected a config for the {tensors:,} tensors with {values:,} values in the files, it asks for far more"
    )

    def count_weight(module: torch.nn.Module, name: str, weight: Tensor | None) -> None:
        nonlocal promised_tensors, promised_values
        promised_tensors += 1
        promised_values += 0 if weight is None else weight.numel()
        if promised_tensors > 2 * tensors + 64 or promised_values > 2 * values:
            raise error

    def count_buffer(module: torch.nn.Module, name: str, buffer: Tensor | None) -> None:
        nonlocal buffered
        buffered += 0 if buffer is None else buffer.numel()
        if buffered > max(2 * values, _MAX_BUFFER_VALUES):
            raise error

    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > 4 * tensors:
        raise error
    hooks = (
        register_module_parameter_registration_hook(count_weight),
        register_module_buffer_registration_hook(count_buffer),
    )
    try:
        with torch.device("meta"), _quiet():
            AutoModel.from_config(config)
    except CheckpointError:
        raise
    except Exception as cause:  # as in read_config: any value may be hostile
        raise CheckpointError(f"expected a config that describes a model: {_one_line(cause)}") from cause
    finally:
        for hook in hooks:
            hook.remove()


def load_weights(folder: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, frozenset[str]]:
    """Load the weights in fp32; the only ones that may be missing are the pooler's (many checkpoints have none)."""
    try:
        with _quiet():
            model, info = AutoModel.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises many kinds for files that do not fit
        raise CheckpointError(f"expected weights that fit the config: {_one_line(error)}") from error
    missing = frozenset(info["missing_keys"])
    lost = sorted(name for name in missing if not name.startswith("pooler."))
    if lost:
        raise CheckpointError(f"expected all weights of {config.model_type}, {len(lost)} are missing, first {lost[0]}")
    return model, missing


def check_finite(model: PreTrainedModel) -> None:
    """NaN or infinite weights make every statistic meaningless."""
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"expected finite weights, {name} holds NaN or infinity")


def load_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer (offsets are needed to map words to tokens)."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"expected a tokenizer in {folder}, found none of {', '.join(_TOKENIZER_FILES)}")
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model") and path.is_file():
            _check_bytes(path, _MAX_JSON_BYTES)
    if (folder / "tokenizer.json").is_file():
        _read_json_object(folder / "tokenizer.json", _MAX_JSON_BYTES)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=config, trust_remote_code=False, local_files_only=True
            )
            pieces = tokenizer(_PROBE).input_ids
    except Exception as error:  # the tokenizers library raises a bare Exception
        raise CheckpointError(f"expected a tokenizer that works: {_one_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"expected a fast tokenizer, got {type(tokenizer).__name__}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise CheckpointError("expected a padding, end or unknown token in the tokenizer, found none")
    if not pieces:
        raise CheckpointError(f"expected a tokenizer that makes tokens of text, it makes none of {_PROBE!r}")
    tokenizer.padding_side = "right"
    return tokenizer


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Every token id must have a row in the embedding matrix."""
    embeddings = model.get_input_embeddings()
    rows = embeddings.weight.shape[0] if isinstance(embeddings, torch.nn.Embedding) else 0
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise CheckpointError("expected a vocabulary in the tokenizer, it is empty")
    if largest >= rows:
        raise CheckpointError(f"expected token ids below the {rows} rows of the embedding matrix, got {largest}")


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


def _check_bytes(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size > limit:
        raise CheckpointError(f"expected {path.name} below {limit:,} bytes, it has {size:,}")


def _read_json_object(path: Path, limit: int) -> dict[str, Any]:
    _check_bytes(path, limit)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"expected JSON in {path.name}: {_one_line(error)}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"expected a JSON object in {path.name}, got {type(raw).__name__}")
    return raw


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers prints load reports and progress bars; what matters of them is raised as an error here."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
