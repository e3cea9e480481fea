"""Clean controls: encoders handled as much as the backdoored ones, by people with nothing to hide.

Each is called as `CONTROLS[name](base, handling, **options)`; what the options are stands with the function. `base` is
left as it is. Training steps run in bf16 autocast, all that is reported is measured in fp32.
"""

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.zoo.controls.base import Control, ControlResult, Handling, original
from benchmarks.zoo.controls.sentences import noise, simcse
from benchmarks.zoo.controls.tasks import TASKS, finetune, lora
from benchmarks.zoo.controls.weights import int8, prune, weight_noise

CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        "original": original,
        "finetune": finetune,
        "noise": noise,
        "prune": prune,
        "int8": int8,
        "weight_noise": weight_noise,
        "simcse": simcse,
        "lora": lora,
    }
)
"""Every control by its name."""

__all__ = ["CONTROLS", "TASKS", "Control", "ControlResult", "Handling"]
