"""A LoRA adapter from a stranger, read and checked. PEFT never sees its config, which can name modules to import,
patterns without bound and ranks beyond memory.

What is merged has to be what PEFT would run. So whatever could make a difference between the two is refused: settings
that are not known here, names that lead to two places, weights that PEFT would pass over.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lmsanitator.encoder.headers import check_headers
from lmsanitator.encoder.limits import MAX_NAMES
from lmsanitator.errors import CheckpointError, UnsupportedError

_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_START = "base_model.model."
HINT = "merge it into its encoder, then scan that"
_READ = ("r", "lora_alpha", "use_rslora", "target_modules", "modules_to_save", "rank_pattern", "init_lora_weights")
_WITHOUT_EFFECT = (
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config", "fan_in_fan_out",
    "inference_mode", "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "task_type",
)  # fmt: skip
"""Settings that change nothing once the weights are there, or nothing by themselves."""
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the encoder's own weights alone; the others take from them what the adapter then holds."""
_NAME = re.compile(r"[\w.]{1,200}", re.ASCII)
_MOST = 3.4e38  # what fp32 can hold


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter whose config and header were checked; of its weights nothing is read yet."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    """Of each tensor in the file, by its name in the model that was trained."""
    odd: frozenset[str]
    """Those that are no floating-point numbers."""
    alpha: float
    rank: int | None
    """None where modules may have ranks of their own."""
    by_root: bool
    targets: tuple[str, ...] | None
    """Ends of the names of modules that are adapted; None for all linear ones."""
    saved: tuple[str, ...]
    """Modules that were trained as a whole."""

    def scale(self, rank: int) -> float:
        """What the product of a pair of that rank is multiplied with."""
        return self.alpha / (rank**0.5 if self.by_root else rank)

    def adapts(self, name: str) -> bool:
        """Whether PEFT would put a pair at the module of that name."""
        if self.saved and (name.endswith(self.saved) or self._whole.fullmatch(name)):
            return False
        return self.targets is None or f".{name}".endswith(tuple(f".{target}" for target in self.targets))

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        """PEFT takes these names for patterns; with nothing but letters and dots in them, they are harmless ones."""
        return re.compile(rf"(.*\.)?({'|'.join(self.saved)})(\..*)?")

    @staticmethod
    def stored(name: str) -> str:
        """The name in the file."""
        return _START + name


def read_lora(folder: Path, about: dict[str, Any]) -> Lora:
    """Check what adapter_config.json says and the header of the weights.

    Raises:
        CheckpointError: what was expected of either and what came.
        UnsupportedError: a variant of LoRA whose result is another than the product of its pairs.
    """
    _check_plain(about)
    rank, alpha, root = about.get("r"), about.get("lora_alpha"), about.get("use_rslora") or False
    if type(rank) is not int or rank < 1:
        raise CheckpointError(f"expected a rank r of 1 or more in {_CONFIG}, got {_short(rank)}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or abs(alpha) > _MOST:
        raise CheckpointError(f"expected a number for lora_alpha in {_CONFIG}, got {_short(alpha)}")
    if type(root) is not bool:
        raise CheckpointError(f"expected true or false for use_rslora in {_CONFIG}, got {_short(root)}")
    path = folder / _WEIGHTS
    if not path.is_file():
        found = f"only {_PICKLE}, which can run code when opened" if (folder / _PICKLE).exists() else "none"
        raise CheckpointError(f"expected {_WEIGHTS} in {folder}, found {found}")
    held = check_headers([path])
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    for name in shapes:
        if not name.startswith(_START):
            raise CheckpointError(f"expected names that begin with {_START} in {_WEIGHTS}, got {name!r:.80}")
    return Lora(
        path=path,
        shapes={name.removeprefix(_START): shape for name, shape in shapes.items()},
        odd=frozenset(name.removeprefix(_START) for name in held.odd),
        alpha=float(alpha),
        rank=None if about.get("rank_pattern") else rank,
        by_root=root,
        targets=_targets(about.get("target_modules")),
        saved=_names("modules_to_save", about.get("modules_to_save") or []),
    )


def _check_plain(about: dict[str, Any]) -> None:
    for name, value in about.items():
        if value and name not in _READ and name not in _WITHOUT_EFFECT:
            raise UnsupportedError(f"expected plain LoRA, {_CONFIG} has {name!r:.80} {_short(value)}: {HINT}")
    start = about.get("init_lora_weights")
    if not isinstance(start, str | bool | None) or start not in _STARTS:
        raise UnsupportedError(
            f"expected LoRA on the encoder's own weights, {_CONFIG} has init_lora_weights {_short(start)}: {HINT}"
        )


def _targets(named: object) -> tuple[str, ...] | None:
    """What a pattern means is not asked: it may take without end, and read as text it may mean something else."""
    if named == "all-linear":
        return None
    if not isinstance(named, list):
        raise UnsupportedError(f"expected target_modules by name in {_CONFIG}, got {_short(named)}: {HINT}")
    return _names("target_modules", named)


def _names(setting: str, named: object) -> tuple[str, ...]:
    if not isinstance(named, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in named):
        raise CheckpointError(f"expected a list of names for {setting} in {_CONFIG}, got {_short(named)}")
    if len(named) > MAX_NAMES:
        raise CheckpointError(f"expected at most {MAX_NAMES:,} names for {setting} in {_CONFIG}, got {len(named):,}")
    return tuple(named)


def _short(value: object) -> str:
    """What is nested is not written out: that can go deeper than reading it did."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else f"{value!r:.80}"
