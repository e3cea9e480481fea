"""An adapter's folder leads to the encoder it was made for."""

from pathlib import Path
from typing import Any

from lmsanitator.encoder.files import locate, read_json_object
from lmsanitator.encoder.limits import MAX_CONFIG_BYTES
from lmsanitator.errors import CheckpointError, UnsupportedError

_CONFIG = "adapter_config.json"
_PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
"""Adapters that leave the encoder as it is: what it hides, it hides without them too."""
_LORA = "LORA"


def read_adapter(folder: Path) -> dict[str, Any] | None:
    """What adapter_config.json says; None where the folder holds no adapter, or an encoder beside it.

    Raises:
        CheckpointError: it cannot be read.
        UnsupportedError: an adapter of a kind that can neither be merged nor left out.
    """
    if not (folder / _CONFIG).is_file() or (folder / "config.json").exists():
        return None
    about = read_json_object(folder / _CONFIG, MAX_CONFIG_BYTES)
    kind = about.get("peft_type")
    if kind not in (*_PROMPTS, _LORA):
        raise UnsupportedError(
            f"expected an encoder, a LoRA adapter or a prompt tuned on one, got an adapter of type {kind!r:.80}: "
            "merge it into its encoder, then scan that"
        )
    return about


def changes_encoder(about: dict[str, Any]) -> bool:
    """Whether the encoder is another one with the adapter than without."""
    return bool(about.get("peft_type") == _LORA)


def find_base(about: dict[str, Any], named: str | Path | None, *, pickles: bool, ask: str = "--base") -> Path:
    """The folder of the encoder an adapter was made for: the one that the user has `named`, else that of its config.

    Only the user may name a hub id: a folder must not be able to reach for the network.

    Args:
        ask: what the user may say it with, for the message.

    Raises:
        CheckpointError: neither leads to an encoder.
    """
    if named is None:
        said = about.get("base_model_name_or_path")
        if not isinstance(said, str) or not _is_folder(said):
            raise CheckpointError(
                f"expected the encoder in a local folder, {_CONFIG} names {said!r:.200}: say where it is ({ask})"
            )
        base, where = Path(said), f"{said}, which {_CONFIG} names"
    else:
        base = locate(named, pickles=pickles)
        where = f"{base}, the base"
    try:
        found = (base / "config.json").exists()
    except OSError as error:  # a folder that may not be entered
        raise CheckpointError(f"expected the encoder in {where}, cannot open it: {error.strerror}") from error
    if not found:
        raise CheckpointError(f"expected the encoder with config.json in {where}; found none")
    return base


def _is_folder(named: str) -> bool:
    try:
        return Path(named).is_dir()
    except (OSError, ValueError):  # a name that is too long, leads where nobody may go, or is no path
        return False
