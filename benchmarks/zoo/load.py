"""Open models of the zoo."""

from pathlib import Path

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
        raise UsageError(f"expected {name} in the zoo, build it: python -m benchmarks.zoo.build --only {name}")
    folder = encoder_folder(entry.encoder, zoo)
    base = FrozenEncoder.open(folder, precision="fp32")
    return FrozenEncoder(load_delta(folder, delta), base.tokenizer, source=name, precision=precision)
