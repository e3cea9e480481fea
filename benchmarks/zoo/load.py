"""Open models of the zoo."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.zoo.build import delta_path, find
from benchmarks.zoo.deltas import load_delta
from benchmarks.zoo.encoders import encoder_folder
from lmsanitator.encoder import FrozenEncoder, Precision
from lmsanitator.errors import UsageError


def open_model(name: str, zoo: Path, *, precision: Precision = "fp32") -> FrozenEncoder:
    """A model of the zoo as a scanner would get it; nothing on it says what it is.

    Raises:
        UsageError: the manifest has no such model, or it is not built.
    """
    entry = find(name)
    delta = delta_path(zoo, name)
    if not delta.exists():
        raise _unbuilt(name)
    folder = encoder_folder(entry.encoder, zoo)
    base = FrozenEncoder.open(folder, precision="fp32")
    return FrozenEncoder(load_delta(folder, delta), base.tokenizer, source=name, precision=precision)


def expect_built(models: Sequence[Mapping[str, Any]]) -> None:
    """Whether there is all that is to be measured, before anything is; an excluded model is no part of that.

    Args:
        models: what is known of each, as `zoo.build.record` says.

    Raises:
        UsageError: a model is not built.
    """
    for model in models:
        if model.get("sha256") is None and not model.get("excluded"):
            raise _unbuilt(model["id"])


def _unbuilt(name: str) -> UsageError:
    return UsageError(f"expected {name} in the zoo, build it: python -m benchmarks.zoo.build --only {name}")
