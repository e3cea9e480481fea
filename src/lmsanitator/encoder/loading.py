"""Open a checkpoint from a stranger without running anything of it.

Order matters: every check that needs no memory comes before the first that does. Weights are safetensors only
(a pickle is code), remote code is refused outright, and the network is used only for an explicit hub id.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder.files import (
    MAX_JSON_BYTES,
    check_bytes,
    check_headers,
    find_weights,
    locate,
    one_line,
    read_config,
    read_json_object,
)
from lmsanitator.encoder.quiet import quiet
from lmsanitator.errors import CheckpointError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
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
        with torch.device("meta"), quiet():
            AutoModel.from_config(config)
    except CheckpointError:
        raise
    except Exception as cause:  # as in read_config: any value may be hostile
        raise CheckpointError(f"expected a config that describes a model: {one_line(cause)}") from cause
    finally:
        for hook in hooks:
            hook.remove()


def load_weights(folder: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, frozenset[str]]:
    """Load the weights in fp32; the only ones that may be missing are the pooler's (many checkpoints have none)."""
    try:
        with quiet():
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
        raise CheckpointError(f"expected weights that fit the config: {one_line(error)}") from error
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
            check_bytes(path, MAX_JSON_BYTES)
    if (folder / "tokenizer.json").is_file():
        read_json_object(folder / "tokenizer.json", MAX_JSON_BYTES)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=config, trust_remote_code=False, local_files_only=True
            )
            pieces = tokenizer(_PROBE).input_ids
    except Exception as error:  # the tokenizers library raises a bare Exception
        raise CheckpointError(f"expected a tokenizer that works: {one_line(error)}") from error
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
