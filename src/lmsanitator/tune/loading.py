"""Open an adapter folder from a stranger without running anything of it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.encoder.adapters import find_base
from lmsanitator.encoder.files import read_json_object
from lmsanitator.encoder.folder import check_folder
from lmsanitator.encoder.headers import Stored, check_headers
from lmsanitator.encoder.limits import MAX_CONFIG_BYTES
from lmsanitator.errors import CheckpointError, CorpusError, TuningError
from lmsanitator.tune.classifier import build, build_tagger
from lmsanitator.tune.methods import HEAD_SITES, PEFT_TYPES, TuneConfig
from lmsanitator.tune.tuned import NOTES, SCHEMA, AnyClassifier, TunedModel, limited_tokenizer

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TASKS = ("SEQ_CLS", "TOKEN_CLS")
_LAST_LAYERS = ("classifier.weight", "score.weight", "out_proj.weight")
_SIZES = ("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules")
_LORA = ("lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "init_lora_weights")
"""What changes LoRA's result without changing the names or shapes of its weights."""


def load_tuned(path: str | Path, *, base: str | Path | None = None) -> TunedModel:
    """Open an adapter folder and the encoder it belongs to.

    The adapter's configuration is not handed to PEFT: the model is built anew from its method, number of virtual
    tokens or rank, and site of the head, and takes weights of exactly the names and shapes that this gives, from
    safetensors only. The tokenizer is the encoder's own.

    Args:
        path: the folder.
        base: where the encoder is; by default the local folder that adapter_config.json names. A hub id has to be
            given here: a folder must not be able to reach for the network by itself.

    Raises:
        TuningError: what was expected of the folder and what came.
        CheckpointError, UnsupportedError: the encoder cannot be found or opened, or does not take the method.
    """
    folder = Path(path)
    try:
        if not folder.is_dir():
            raise TuningError(f"expected an adapter folder, there is none at {folder}")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise TuningError(f"expected an adapter folder, cannot open {folder!s:.200}: {error.strerror}") from error
    with _about_the_adapter():
        check_folder(folder)
        raw = read_json_object(folder / _CONFIG, MAX_CONFIG_BYTES)
        notes = read_json_object(folder / NOTES, MAX_CONFIG_BYTES) if (folder / NOTES).is_file() else {"schema": SCHEMA}
        held = _held(folder)
    if notes.get("schema") != SCHEMA:
        raise TuningError(f"expected {NOTES} of schema {SCHEMA}, got {notes.get('schema')!r:.80}")
    encoder = FrozenEncoder.open(find_base(raw, None, pickles=False, ask="--base, or base=") if base is None else base)
    if notes.get("encoder_digest") not in (None, encoder.digest):
        raise TuningError(f"expected the encoder that the adapter was tuned on, {encoder.source} has other weights")
    if held.values > encoder.parameters:
        raise TuningError(
            f"expected an adapter smaller than its encoder of {encoder.parameters:,} weights, it has {held.values:,}"
        )
    weights = _read_weights(folder)
    labels = _labels(notes, weights)
    config = _config(raw, notes, weights)
    model = _model(encoder, labels, config, words=raw["task_type"] == "TOKEN_CLS")
    _check_fit(model, raw, weights)
    set_peft_model_state_dict(model, weights)
    model.peft_config["default"].inference_mode = True  # P-tuning's network is not stored, only what it put out
    model.requires_grad_(False)
    accuracy = notes.get("validation_accuracy")
    reached = accuracy if isinstance(accuracy, float) and math.isfinite(accuracy) else math.nan
    return TunedModel(model, limited_tokenizer(encoder, config), labels, encoder, reached)


def _model(encoder: FrozenEncoder, labels: tuple[str, ...], config: TuneConfig, *, words: bool) -> AnyClassifier:
    if not words:
        return build(encoder, labels, config)
    try:
        return build_tagger(encoder, labels, config)
    except CorpusError as error:
        raise TuningError(f"{error} in {NOTES}") from error


def _config(raw: dict[str, Any], notes: dict[str, Any], weights: dict[str, Tensor]) -> TuneConfig:
    method = PEFT_TYPES.get(str(raw.get("peft_type")))
    if method is None or raw.get("task_type") not in _TASKS:
        got = f"{raw.get('peft_type')!r} for {raw.get('task_type')!r}"
        known = f"{' or '.join(PEFT_TYPES)} for {' or '.join(_TASKS)}"
        raise TuningError(f"expected an adapter of type {known}, {_CONFIG} has {got}")
    length, site = notes.get("max_length", TuneConfig.max_length), notes.get("site", "auto")
    if type(length) is not int or length < 8:
        raise TuningError(f"expected a max_length of 8 or more in {NOTES}, got {length!r}")
    if site not in HEAD_SITES:
        raise TuningError(f"expected a site of {', '.join(HEAD_SITES)} in {NOTES}, got {site!r}")
    if method == "lora":
        held = next((weight for name, weight in weights.items() if "lora_A." in name), torch.empty(0))
        return TuneConfig(method=method, site=site, rank=_size(raw, "r", "ranks", held), max_length=length)
    held = weights.get("prompt_embeddings", torch.empty(0))
    tokens = _size(raw, "num_virtual_tokens", "virtual tokens", held)
    return TuneConfig(method=method, site=site, virtual_tokens=tokens, max_length=length)


def _size(raw: dict[str, Any], name: str, what: str, held: Tensor) -> int:
    """A size of the adapter, which sizes the model that is built: no larger than the weights that came with it."""
    size = raw.get(name)
    if type(size) is not int or size < 1 or held.shape[:1] != (size,):
        raise TuningError(f"expected as many {what} in {_WEIGHTS} as {_CONFIG} says, {size!r}")
    return size


def _labels(notes: dict[str, Any], weights: dict[str, Tensor]) -> tuple[str, ...]:
    """The label names; for an adapter that this package did not write, numbers, as many as its head has outputs."""
    rows = next((len(weight) for name, weight in weights.items() if name.endswith(_LAST_LAYERS)), 0)
    labels = notes.get("labels", [str(index) for index in range(rows)])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels) or len(labels) != rows:
        raise TuningError(f"expected a list of {rows} label names in {NOTES}, as many as the head has outputs")
    return tuple(labels)


def _check_fit(model: PeftModel, raw: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """The adapter must have been made for this encoder: same sizes, and every weight in its place."""
    adapter = model.peft_config["default"]
    for name in _LORA if adapter.peft_type == PeftType.LORA else _SIZES:
        expected = getattr(adapter, name)
        if raw.get(name) not in (None, expected):
            raise TuningError(f"expected {name} {expected} for this encoder, {_CONFIG} has {raw.get(name)!r}")
    expected_weights = get_peft_model_state_dict(model)
    odd = sorted(expected_weights.keys() ^ weights.keys())
    if odd:
        raise TuningError(
            f"expected the weights {', '.join(expected_weights)} in {_WEIGHTS}; {odd[0]} is odd among them"
        )
    for name, weight in expected_weights.items():
        if weight.shape != weights[name].shape:
            shapes = tuple(weight.shape), tuple(weights[name].shape)
            raise TuningError(f"expected {name} of shape {shapes[0]} for this encoder, got {shapes[1]}")


def _held(folder: Path) -> Stored:
    """What the adapter's file says it holds: whether that can be is told before any of it is read."""
    path = folder / _WEIGHTS
    if not path.is_file():
        pickled = "adapter_model.bin" if (folder / "adapter_model.bin").exists() else None
        found = f"only {pickled}, which can run code when opened" if pickled else "none"
        raise TuningError(f"expected {_WEIGHTS} in {folder}, found {found}")
    return check_headers([path])


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / _WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise TuningError(f"expected a whole safetensors file, {path} is not: {error}") from error
    for name, weight in weights.items():
        if not weight.is_floating_point() or not bool(torch.isfinite(weight).all()):
            raise TuningError(f"expected finite numbers in {path}, {name} holds others")
    return weights


@contextmanager
def _about_the_adapter() -> Iterator[None]:
    """What is wrong with the adapter's own files is no fault of the encoder."""
    try:
        yield
    except CheckpointError as error:
        raise TuningError(str(error)) from error
