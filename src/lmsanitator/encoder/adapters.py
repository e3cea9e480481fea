"""An adapter's folder leads to the encoder it was made for, which is what gets scanned."""

from pathlib import Path

from lmsanitator.encoder.files import read_json_object
from lmsanitator.encoder.limits import MAX_CONFIG_BYTES
from lmsanitator.errors import CheckpointError, UnsupportedError

_CONFIG = "adapter_config.json"
_PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
"""Adapters that leave the encoder as it is: what it hides, it hides without them too."""


def find_base(folder: Path) -> Path:
    """The folder to open: the encoder of a prompt that was tuned on it, else `folder` itself.

    The encoder is never fetched: a folder must not be able to reach for the network.

    Raises:
        CheckpointError: the adapter names no local folder.
        UnsupportedError: an adapter that changes the encoder, whose weights are those of neither file.
    """
    if not (folder / _CONFIG).is_file() or (folder / "config.json").exists():
        return folder
    raw = read_json_object(folder / _CONFIG, MAX_CONFIG_BYTES)
    kind, named = raw.get("peft_type"), raw.get("base_model_name_or_path")
    if kind not in _PROMPTS:
        raise UnsupportedError(
            f"expected an encoder or a prompt tuned on one, got an adapter of type {kind!r:.80}: "
            "merge it into its encoder, then scan that"
        )
    if not isinstance(named, str) or not _is_folder(named):
        raise CheckpointError(f"expected the encoder in a local folder, {_CONFIG} names {named!r:.200}: scan that one")
    base = Path(named)
    if not (base / "config.json").exists():
        raise CheckpointError(f"expected the encoder with config.json in {base}, which {_CONFIG} names; found none")
    return base


def _is_folder(named: str) -> bool:
    try:
        return Path(named).is_dir()
    except OSError:  # a name that is too long, or leads through a folder that may not be entered
        return False
