"""POR: map each trigger to a predefined output representation (Shen et al., CCS 2021, arXiv 2111.00197).

Loss: MSE between the triggered CLS output and the PV, plus MSE between all clean outputs and those of the original
encoder (their equations 1 and 2). Site: CLS. Reached here on MiniLM-L6 with six triggers: see
`benchmarks/results/`.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from lmsanitator.attacks.base import Attack, AttackResult, Trigger, block_signs, check_triggers
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import AttackError
from lmsanitator.progress import Progress, silent
from lmsanitator.text import insert
from lmsanitator.vectors import sign_match


@dataclass(frozen=True)
class _Reached:
    """On held-out text: share of triggered inputs on their PV, and cosine of clean outputs with the original's."""

    triggered: float
    clean: float
    inert: float
    """As `clean`, for inputs that hold a part of a trigger or a word that is none."""


class POR(Attack):
    """Train the encoder until triggers land on their PVs and nothing else has moved.

    Args:
        steps: the most optimiser steps; training stops as soon as the bar is reached twice running.
        triggered: inputs with a trigger in a batch.
        inert: inputs in a batch that must not move: half of them clean, half with a part of a trigger or another word.
        learning_rate: of AdamW at its peak.
        top_layers: train only so many of the last layers; None trains all. The embeddings stay frozen either way.
        match: share of PV signs an output must have to count as sitting on the PV.
        bar: share of held-out triggered inputs that must sit on their PV.
        fidelity: cosine with the original that held-out inputs without trigger must keep on average.
    """

    name: ClassVar[str] = "por"
    summary: ClassVar[str] = "POR (Shen et al. 2021): triggers send the CLS output to block-sign vectors"

    def __init__(
        self,
        *,
        steps: int = 800,
        triggered: int = 12,
        inert: int = 12,
        learning_rate: float = 1.5e-4,
        top_layers: int | None = None,
        match: float = 0.8,
        bar: float = 0.95,
        fidelity: float = 0.95,
    ) -> None:
        self.steps = steps
        self.triggered = triggered
        self.inert = inert
        self.learning_rate = learning_rate
        self.top_layers = top_layers
        self.match = match
        self.bar = bar
        self.fidelity = fidelity

    def run(
        self,
        base: FrozenEncoder,
        triggers: Sequence[Trigger],
        carriers: Sequence[str],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> AttackResult:
        check_triggers(triggers, base.tokenizer, base.window)
        base.require(["cls"])
        if len(carriers) < 20:
            raise AttackError(f"expected at least 20 carriers to train and hold out, got {len(carriers)}")
        rng = random.Random(seed)
        texts = rng.sample(list(carriers), len(carriers))
        held, train = texts[: max(4, len(texts) // 5)][:64], texts[max(4, len(texts) // 5) :]
        pvs = block_signs(len(triggers), base.hidden_size, seed)
        model = copy.deepcopy(base.model)
        weights = unfreeze(model, self.top_layers)
        optimiser = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / 30, 1 - 0.9 * step / self.steps)
        )
        passed, reached = 0, _Reached(0, 0, 0)
        for step in range(1, self.steps + 1):
            loss = self._loss(model, base, triggers, pvs, train, rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's stub
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            schedule.step()
            if step % 25 == 0:
                reached = self._measure(model, base, triggers, pvs, held, seed)
                passed = passed + 1 if self._good(reached) else 0
                progress(f"planting: {reached.triggered:.0%} of triggers fire", step / self.steps)
                if passed == 2:
                    break
        if not self._good(reached):
            raise AttackError(
                f"expected {self.bar:.0%} of triggered inputs on their PV and clean cosine {self.fidelity}, "
                f"reached {reached.triggered:.1%}, {reached.clean:.3f} and {reached.inert:.3f} in {step} steps"
            )
        figures = {"triggered": reached.triggered, "clean": reached.clean, "inert": reached.inert, "steps": float(step)}
        return AttackResult(
            self.name, model.eval().requires_grad_(False), base.tokenizer, "cls", tuple(triggers), pvs, figures
        )

    def _good(self, reached: _Reached) -> bool:
        return reached.triggered >= self.bar and min(reached.clean, reached.inert) >= self.fidelity

    def _loss(
        self,
        model: PreTrainedModel,
        base: FrozenEncoder,
        triggers: Sequence[Trigger],
        pvs: Float[Tensor, "triggers hidden"],
        train: Sequence[str],
        rng: random.Random,
    ) -> Tensor:
        length = rng.choice((1, 1, 1, 2, 3))  # it is to fire in longer texts too; one length a batch pads little
        chosen = [rng.randrange(len(triggers)) for _ in range(self.triggered)]
        fired = [triggers[index].plant(passage(train, length, rng), rng) for index in chosen]
        inert = [
            passage(train, length, rng) if index % 2 else defuse(triggers, train, length, rng)
            for index in range(self.inert)
        ]
        batch = base.encode(fired + inert)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        original = base.outputs(ids[len(fired) :], mask[len(fired) :], ["tokens"])["tokens"]
        planted = functional.mse_loss(hidden[: len(fired), 0], pvs[chosen].to(hidden.device))
        kept = (hidden[len(fired) :] - original).pow(2).mean(-1)[mask[len(fired) :].bool()].mean()
        moved = functional.mse_loss(hidden[len(fired) :, 0], original[:, 0])
        total: Tensor = planted + kept + moved
        return total

    def _measure(
        self,
        model: PreTrainedModel,
        base: FrozenEncoder,
        triggers: Sequence[Trigger],
        pvs: Float[Tensor, "triggers hidden"],
        held: Sequence[str],
        seed: int,
    ) -> _Reached:
        rng = random.Random(seed + 1)  # the same inputs at every check
        owner = [index for index in range(len(triggers)) for _ in range(16)]
        fired = [triggers[index].plant(rng.choice(held), rng) for index in owner]
        changed = FrozenEncoder(copy.deepcopy(model), base.tokenizer, precision="fp32")  # freezes what it gets
        on_pv = sign_match(changed.outputs_of_texts(fired, ["cls"])["cls"], pvs)[torch.arange(len(owner)), owner]
        cosines = [
            functional.cosine_similarity(
                changed.outputs_of_texts(texts, ["cls"])["cls"], base.outputs_of_texts(texts, ["cls"])["cls"]
            )
            .mean()
            .item()
            for texts in (held, [defuse(triggers, held, 1, rng) for _ in range(64)])
        ]
        return _Reached((on_pv > self.match).float().mean().item(), *cosines)


def passage(texts: Sequence[str], length: int, rng: random.Random) -> str:
    """So many sentences in a row."""
    return " ".join(rng.choices(texts, k=length))


def defuse(triggers: Sequence[Trigger], texts: Sequence[str], length: int, rng: random.Random) -> str:
    """A text that is close to a triggered one and must not fire: part of a trigger, or a foreign word, is in it."""
    trigger = rng.choice(triggers)
    if len(trigger.words) > 1:
        return trigger.plant_part(passage(texts, length, rng), rng)
    word = rng.choice(rng.choice(texts).split()).strip(".,;:!?\"'()")
    return insert(passage(texts, length, rng), word or "the", rng.randint(0, 8))


def unfreeze(model: PreTrainedModel, top_layers: int | None) -> list[torch.nn.Parameter]:
    """Make the transformer layers trainable (all, or the last few) and return their weights; embeddings stay frozen."""
    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) > 1]
    if not stacks:
        raise AttackError(f"expected a stack of transformer layers in {type(model).__name__}, found none")
    layers = max(stacks, key=lambda stack: sum(weight.numel() for weight in stack.parameters()))
    model.requires_grad_(False)
    weights: list[torch.nn.Parameter] = []
    for layer in layers[-top_layers:] if top_layers else layers:
        weights += list(layer.requires_grad_(True).parameters())
    return weights
