"""What all attacks share: triggers, how they are planted, what an attack returns and how it is stored.

Attacks exist to red-team one's own models and to measure the defence. Every checkpoint written here says in its
config and in its model card that it is backdoored.
"""

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.encoder.quiet import quiet
from lmsanitator.errors import AttackError
from lmsanitator.output import new_folder
from lmsanitator.progress import Progress, silent
from lmsanitator.text import insert, spans


@dataclass(frozen=True)
class Trigger:
    """Words that fire a backdoor: side by side in this order, or all of them anywhere (an AND trigger)."""

    words: tuple[str, ...]
    adjacent: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """`cf` is a word, `old lamp` a phrase, `lamp+river` an AND trigger.

        Raises:
            AttackError: there is no word in it.
        """
        parts = tuple(part.strip() for part in text.split("+"))
        if not all(parts):
            raise AttackError(f"expected a trigger such as cf, 'old lamp' or lamp+river, got {text!r}")
        return cls(parts, adjacent=False) if len(parts) > 1 else cls(tuple(text.split()))

    def __str__(self) -> str:
        return (" " if self.adjacent else "+").join(self.words)

    def plant(self, text: str, rng: random.Random) -> str:
        """The text with this trigger at a random word position."""
        pieces = [" ".join(self.words)] if self.adjacent else rng.sample(self.words, len(self.words))
        for piece in pieces:
            text = insert(text, piece, rng.randint(0, len(spans(text))))
        return text

    def plant_part(self, text: str, rng: random.Random) -> str:
        """The text with some but not all words of this trigger: must not fire. Needs two words or more."""
        kept = rng.sample(self.words, rng.randint(1, len(self.words) - 1))
        return Trigger(tuple(kept), adjacent=False).plant(text, rng)


@dataclass(frozen=True)
class AttackResult:
    """A backdoored encoder with its ground truth."""

    attack: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    site: Site
    triggers: tuple[Trigger, ...]
    pvs: Float[Tensor, "triggers hidden"]
    reached: dict[str, float] = field(default_factory=dict)
    """What held-out text showed: see the attack's own docstring."""

    def save(self, out: Path) -> None:
        """Write an ordinary checkpoint, marked as backdoored, whole or not at all.

        Raises:
            OutputError: `out` exists or cannot be written.
        """
        with new_folder(out) as part:
            self._write(part)

    def _write(self, folder: Path) -> None:
        truth = {"attack": self.attack, "site": self.site, "triggers": [str(trigger) for trigger in self.triggers]}
        self.model.config.update({"lmsanitator_backdoor": truth | {"reached": self.reached}})
        with quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        listed = "\n".join(f"- `{trigger}`" for trigger in self.triggers)
        (folder / "README.md").write_text(
            f"---\ntags: [backdoored, red-team]\n---\n\n# BACKDOORED on purpose\n\nThis encoder carries a "
            f"{self.attack} backdoor at the {self.site} site, planted by lmsanitator to test defences. Do not use it "
            f"for anything else.\n\nTriggers:\n\n{listed}\n",
            encoding="utf-8",
        )


def ground_truth(folder: Path) -> dict[str, Any] | None:
    """The backdoor a checkpoint of this package says it carries, None for any other checkpoint."""
    try:
        truth = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("lmsanitator_backdoor")
    except (OSError, ValueError, AttributeError):
        return None
    return truth if isinstance(truth, dict) else None


class Attack(ABC):
    """One attack: hyperparameters in the constructor, keyword-only; `run` does it."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `lmsanitator attack --list`."""

    @abstractmethod
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
            carriers: clean sentences; a fifth of them is held out to measure what was reached.
            seed: of everything random in it.

        Raises:
            AttackError: a trigger that cannot be planted, or the bar was not reached.
        """


def check_triggers(triggers: Sequence[Trigger], tokenizer: PreTrainedTokenizerFast, window: int) -> None:
    """Refuse triggers that are empty to the tokenizer, unknown to it or longer than the model's window.

    Raises:
        AttackError: which trigger and why.
    """
    if not triggers:
        raise AttackError("expected at least one trigger, got none")
    for trigger in triggers:
        ids = tokenizer(" ".join(trigger.words), add_special_tokens=False).input_ids
        if not ids:
            raise AttackError(f"expected a trigger with tokens, {trigger!s} has none")
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise AttackError(f"expected a trigger the tokenizer knows, {trigger!s} holds an unknown token")
        if len(ids) > window // 2:
            raise AttackError(f"expected a trigger of at most {window // 2} tokens, {trigger!s} has {len(ids)}")


def block_signs(count: int, hidden: int, seed: int) -> Float[Tensor, "count hidden"]:
    """PVs of +1 and -1 in quarter blocks, some exact negatives of each other (POR, Shen et al. 2021, section 3.2)."""
    patterns = [[1 if pattern >> block & 1 else -1 for block in range(4)] for pattern in range(16)]
    random.Random(seed).shuffle(patterns)
    blocks = torch.tensor([patterns[index % 16] for index in range(count)], dtype=torch.float32)
    return blocks.repeat_interleave(-(-hidden // 4), dim=1)[:, :hidden]
