"""Open a checkpoint from a stranger without running anything of it.

Order matters: every check that needs no memory comes before the first that does. Weights are safetensors
(a pickle is code, and opened for those who ask only), remote code is refused outright, and the network is
used only for an explicit hub id.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder.adapters import changes_encoder, find_base, read_adapter
from lmsanitator.encoder.files import find_weights, has_safetensors, locate, read_config
from lmsanitator.encoder.folder import check_folder
from lmsanitator.encoder.headers import Stored, check_headers
from lmsanitator.encoder.limits import MAX_BUFFER_VALUES
from lmsanitator.encoder.lora import read_lora
from lmsanitator.encoder.merging import merge
from lmsanitator.encoder.pickles import read_pickles, stored
from lmsanitator.encoder.quiet import refusing
from lmsanitator.encoder.tokenizer import check_vocabulary, load_tokenizer
from lmsanitator.errors import CheckpointError, UnsupportedError, UsageError
from lmsanitator.memory import total_memory

_PROBED = 8  # tokens, spread over the vocabulary
_PROBE_LENGTH = 4
_RENAMED = ((".gamma", ".weight"), (".beta", ".bias"))  # of layer norms, in old checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: everything about it was checked before this object came to be."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    untrained: frozenset[str]
    """Names of weights the files did not hold and that were made up at random (a pooler, at most)."""


def open_checkpoint(source: str | Path, *, base: str | Path | None = None, allow_pickle: bool = False) -> Checkpoint:
    """Open a local directory or a hub id (`org/name` or `org/name@revision`).

    Of a folder with a tuned prompt, the encoder it was tuned on is opened; of one with a LoRA adapter, that encoder
    with the adapter merged into it.

    Args:
        base: the encoder an adapter was made for, a directory or a hub id; by default the directory that the adapter
            names.
        allow_pickle: where there are no safetensors, take pytorch_model.bin, if it holds tensors and nothing else.

    Raises:
        CheckpointError: what was expected of the files and what came.
        UnsupportedError: a sound checkpoint of a kind that has no encoder to scan, or too large for this machine.
        UsageError: a base is given for what is no adapter.
    """
    folder = locate(source, pickles=allow_pickle)
    check_folder(folder)
    adapter, lora = read_adapter(folder), None
    if adapter is None and base is not None:
        raise UsageError(f"expected an adapter's folder where a base is given, {source} is none")
    if adapter is not None:
        lora = read_lora(folder, adapter) if changes_encoder(adapter) else None
        folder = find_base(adapter, base, pickles=allow_pickle)
        if lora is None:
            source = folder if base is None else base
        check_folder(folder)
    config = read_config(folder)
    if allow_pickle and not has_safetensors(folder):
        tensors = read_pickles(folder)
        held = stored(tensors)
    else:
        tensors, held = None, check_headers(find_weights(folder))
    architecture = check_size(config, held)
    check_names(held.names, architecture)
    model, untrained = load_weights(folder, config, architecture, tensors)
    if lora is not None:
        untrained -= merge(model, lora)
    check_weights(model, held.odd)
    tokenizer = load_tokenizer(folder, config)
    check_vocabulary(model, tokenizer)
    check_outputs(model, tokenizer)
    return Checkpoint(str(source), model, tokenizer, untrained)


def check_size(config: PreTrainedConfig, held: Stored) -> type[PreTrainedModel]:
    """Refuse a config that asks for far more than the files hold, before any of it is allocated; returns the class
    of the model.

    The model is built without memory. That still takes time, so building stops at the first weight too many. Layers
    may share weights (ALBERT), so their number is limited for its own sake.
    """
    tensors, values = held.tensors, held.values
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
        if buffered > max(2 * values, MAX_BUFFER_VALUES):
            raise error

    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > 4 * tensors:
        raise error
    if isinstance(layers, int) and layers < 1:
        raise CheckpointError(f"expected a config of at least one layer, it has {layers}")
    hooks = (
        register_module_parameter_registration_hook(count_weight),
        register_module_buffer_registration_hook(count_buffer),
    )
    try:
        with refusing("a config that describes a model"), torch.device("meta"):
            model = AutoModel.from_config(config)
    finally:
        for hook in hooks:
            hook.remove()
    needed, memory = promised_values * torch.float32.itemsize, total_memory()
    if needed > memory:
        raise UnsupportedError(
            f"expected weights that fit into memory, in fp32 they take {needed:,} bytes of {memory:,}"
        )
    return type(model)


def check_names(names: frozenset[str], architecture: type[PreTrainedModel]) -> None:
    """Refuse two tensors for one weight, under names that mean the same: one library takes the first, another the
    other, and what was scanned would not be what is used."""
    prefix = f"{architecture.base_model_prefix}."
    first: dict[str, str] = {}
    for name in sorted(names):
        meant = name.removeprefix(prefix)
        for old, new in _RENAMED:
            meant = f"{meant.removesuffix(old)}{new}" if meant.endswith(old) else meant
        if meant in first:
            raise CheckpointError(f"expected each weight once, the files hold {first[meant]:.80} and {name:.80}")
        first[meant] = name


def load_weights(
    folder: Path,
    config: PreTrainedConfig,
    architecture: type[PreTrainedModel],
    tensors: dict[str, Tensor] | None,
) -> tuple[PreTrainedModel, frozenset[str]]:
    """Load the weights in fp32, from `tensors` where they were read already; the only ones that may be missing are
    the pooler's (many checkpoints have none)."""
    with refusing("weights that fit the config"):
        opened: Any = architecture.from_pretrained(
            folder if tensors is None else None,
            config=config,
            state_dict=tensors,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    model, info = opened
    missing = frozenset(info["missing_keys"])
    lost = sorted(name for name in missing if not name.startswith("pooler."))
    if lost:
        raise CheckpointError(f"expected all weights of {config.model_type}, {len(lost)} are missing, first {lost[0]}")
    return model, missing


def check_weights(model: PreTrainedModel, odd: frozenset[str]) -> None:
    """Refuse weights that are no floats in the file, and NaN or infinity, which make every statistic meaningless."""
    endings = tuple(f".{name}" for name, _ in model.named_parameters())  # the file may have a prefix before them
    for name in sorted(odd):
        if f".{name}".endswith(endings):
            raise CheckpointError(f"expected floating-point weights, {name:.80} is stored as something else")
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"expected finite weights, {name} holds NaN or infinity")


def check_outputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse an encoder whose outputs are not finite, or the same whatever it reads."""
    largest = max(tokenizer.get_vocab().values())
    ids = torch.linspace(0, largest, _PROBED).long().unsqueeze(1).expand(-1, _PROBE_LENGTH)
    model.eval()
    with refusing("an encoder that reads text"), torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    if not bool(torch.isfinite(hidden).all()):
        raise CheckpointError("expected finite outputs, the encoder gives NaN or infinity")
    if hidden.shape[-1] != getattr(model.config, "hidden_size", None):
        raise UnsupportedError(
            f"expected a config whose hidden_size is that of the outputs, {hidden.shape[-1]}: "
            f"{type(model.config).__name__} has another, or none of its own"
        )
    if bool((hidden == hidden[:1]).all()):
        raise CheckpointError("expected outputs that depend on the text, they are the same whatever is read")
