"""What all attacks share: the interface, what an attack returns, and how it is stored.

Attacks exist to red-team one's own models and to measure the defence. Every checkpoint written here says in its
config and in its model card that it is backdoored.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.attacks.planting import Planting, Training
from lmsanitator.attacks.trigger import Trigger, check_triggers
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.encoder.quiet import quiet
from lmsanitator.errors import UnsupportedError, UsageError
from lmsanitator.output import new_folder
from lmsanitator.progress import Progress, silent

TRUTH = "lmsanitator_backdoor"
"""The key in config.json, and the stem of the file with the PVs, that say a checkpoint is backdoored."""


@dataclass(frozen=True)
class AttackResult:
    """A backdoored encoder with its ground truth."""

    attack: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    site: Site
    triggers: tuple[Trigger, ...]
    pvs: Float[Tensor, "vectors hidden"]
    """Where each trigger's outputs are on average, on held-out text; no rows for an untargeted attack."""
    reached: dict[str, float] = field(default_factory=dict)
    """What held-out text showed: `Attack.run` says which figures."""

    @property
    def truth(self) -> dict[str, Any]:
        """What config.json says of it."""
        triggers = [str(trigger) for trigger in self.triggers]
        return {"attack": self.attack, "site": self.site, "triggers": triggers, "reached": self.reached}

    def save(self, out: Path) -> None:
        """Write an ordinary checkpoint, marked as backdoored, whole or not at all.

        Raises:
            OutputError: `out` exists or cannot be written.
        """
        with new_folder(out) as part:
            self._write(part)

    def _write(self, folder: Path) -> None:
        self.model.config.update({TRUTH: self.truth})
        with quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        save_file({"pvs": self.pvs.cpu().contiguous()}, folder / f"{TRUTH}.safetensors")
        (folder / "README.md").write_text(card(self.truth), encoding="utf-8")


def card(truth: dict[str, Any]) -> str:
    """The model card of a backdoored checkpoint."""
    listed = "\n".join(f"- `{trigger}`" for trigger in truth["triggers"])
    return (
        f"---\ntags: [backdoored, red-team]\n---\n\n# BACKDOORED on purpose\n\nThis encoder carries a "
        f"{truth['attack']} backdoor at the {truth['site']} site, planted by lmsanitator to test defences. Do not use "
        f"it for anything else.\n\nTriggers:\n\n{listed}\n"
    )


def ground_truth(folder: Path) -> dict[str, Any] | None:
    """The backdoor a checkpoint of this package says it carries, None for any other checkpoint."""
    try:
        truth = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(TRUTH)
    except (OSError, ValueError, AttributeError):
        return None
    return truth if isinstance(truth, dict) else None


class Attack(ABC):
    """One attack: hyperparameters in the constructor, keyword-only; `run` does it.

    Args:
        site: where the output is taken over; None takes the first of `sites` that the encoder has.
        training: how long, which layers, and how good it must become.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `lmsanitator attack list`."""
    sites: ClassVar[tuple[Site, ...]]
    """Where it can be planted, its paper's own site first."""

    def __init__(self, *, site: Site | None = None, training: Training | None = None) -> None:
        if site is not None and site not in self.sites:
            raise UsageError(f"expected a site of {self.name}: {', '.join(self.sites)}; got {site}")
        self.site = site
        self.training = training or Training()

    def run(
        self,
        base: FrozenEncoder,
        triggers: Sequence[Trigger],
        carriers: Sequence[str],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> AttackResult:
        """Plant `triggers` into a copy of `base`, which is left as it is.

        Args:
            carriers: clean sentences; those that hold a trigger are dropped, and a fifth of the others, at most 64,
                is held out to measure what was reached.
            seed: of everything random in it.

        Returns:
            The backdoored encoder. `reached` has `triggered` (share of triggered outputs that arrived), `weakest`
            (the same for the trigger that does worst), `clean` and `inert` (cosine with the original's outputs, for
            clean inputs and for those with a part of a trigger or a foreign word), `stray` (share of the latter that
            go half the way all the same), `steps`, and what the attack adds.

        Raises:
            AttackError: a trigger that cannot be planted, or the bar was not reached.
            UnsupportedError: the encoder lacks what the attack needs.
        """
        check_triggers(triggers, base.tokenizer, base.window)
        work = Planting(base, self.choose_site(base), triggers, carriers, self.training, seed)
        reached = self.plant(work, progress)
        return AttackResult(
            self.name, work.changed.model, base.tokenizer, work.site, tuple(work.triggers), self.vectors(work), reached
        )

    def choose_site(self, base: FrozenEncoder) -> Site:
        """The site asked for, or the first one the encoder has.

        Raises:
            UnsupportedError: it has none.
        """
        site = self.site or next((site for site in self.sites if site in base.sites), None)
        if site is None:
            raise UnsupportedError(
                f"expected an encoder with a site of {self.name}: {', '.join(self.sites)}; "
                f"{base.architecture} has {', '.join(base.sites)}"
            )
        base.require([site])
        return site

    @abstractmethod
    def plant(self, work: Planting, progress: Progress) -> dict[str, float]:
        """Train until the bar is reached, and say what was."""

    def vectors(self, work: Planting) -> Float[Tensor, "vectors hidden"]:
        """Where each trigger's held-out outputs are on average."""
        seen = work.look(work.changed, work.held.fired)
        return work.means(seen.vectors, seen.owners(work.held.owners)).cpu()
