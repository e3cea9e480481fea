"""What every attack does alike: draw batches, run the trained and the original encoder, train until the bar is reached.

An attack says what its loss is and when it has reached its aim (`base.Attack`); everything else is here.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lmsanitator.attacks.kinds import whole_words
from lmsanitator.attacks.texts import Framed, defuse, fit, frame, passages, split, unfired
from lmsanitator.attacks.trigger import Trigger
from lmsanitator.attacks.weights import Layers, unfreeze
from lmsanitator.encoder import FrozenEncoder, Precision, Site, pieces, read_site
from lmsanitator.encoder.precision import takes_bf16
from lmsanitator.errors import AttackError
from lmsanitator.progress import Progress
from lmsanitator.text import words

_PER_TRIGGER = 12
_PROBES = 32


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        steps: the most optimiser steps; training stops as soon as the bar is reached at two looks running.
        look: steps between two looks at held-out text.
        triggered: inputs with a trigger in a batch.
        inert: inputs in a batch that must not move: half of them clean, half with a part of a trigger or another word.
        learning_rate: of AdamW at its peak.
        layers: which weights are trained.
        reach: a triggered output has arrived when this share of its squared distance to the target is left.
        bar: share of held-out triggered outputs that must have arrived; of those without trigger, no more than the
            rest may have gone half the way.
        fidelity: cosine with the original, seen from the centre of the clean outputs, that held-out inputs without
            trigger must keep on average.
        bf16: train in bf16 autocast; None where the processor multiplies it natively.
    """

    steps: int = 300
    look: int = 20
    triggered: int = 12
    inert: int = 12
    learning_rate: float = 2e-4
    layers: Layers = field(default_factory=Layers)
    reach: float = 0.2
    bar: float = 0.95
    fidelity: float = 0.85
    bf16: bool | None = None


@dataclass(frozen=True)
class Seen:
    """What one forward pass gave."""

    hidden: Float[Tensor, "batch tokens hidden"]
    mask: Int[Tensor, "batch tokens"]
    vectors: Float[Tensor, "vectors hidden"]
    """The outputs at the site: one a text, or one a token at the tokens site."""
    rows: Int[Tensor, "vectors"]
    """The text each vector is of."""

    def owners(self, of_texts: Sequence[int]) -> Int[Tensor, "vectors"]:
        """The trigger of each vector, given the trigger of each text."""
        return torch.tensor(of_texts, device=self.rows.device)[self.rows]


@dataclass(frozen=True)
class Held:
    """Held-out inputs, the same at every look, and what the original encoder makes of them."""

    fired: list[str]
    owners: list[int]
    """The trigger in each of `fired`."""
    clean: list[str]
    inert: list[str]


class Planting:
    """One attack in progress: two encoders, the texts, and the random numbers."""

    def __init__(
        self,
        base: FrozenEncoder,
        site: Site,
        triggers: Sequence[Trigger],
        carriers: Sequence[str],
        training: Training,
        seed: int,
    ) -> None:
        self.base, self.site, self.training, self.seed = base, site, training, seed
        self.reduced = takes_bf16("auto", base.device) if training.bf16 is None else training.bf16
        precision: Precision = "bf16" if self.reduced else "fp32"
        self.reference = FrozenEncoder(base.model, base.tokenizer, precision=precision, device=str(base.device))
        # a second encoder of the same kind: frozen until `unfreeze` takes some of its weights out of the ice
        twin = copy.deepcopy(base.model)
        self.changed = FrozenEncoder(twin, base.tokenizer, precision="fp32", device=str(base.device))
        self.weights = unfreeze(self.changed.model, training.layers, site)
        self._carriers = list(carriers)
        self.take(triggers)

    def take(self, triggers: Sequence[Trigger]) -> None:
        """Draw everything that depends on the triggers: texts without them, words to tell them from, held-out inputs.

        Raises:
            AttackError: too few texts are left.
        """
        self.triggers = list(triggers)
        self.rng = random.Random(self.seed)
        # a trigger that the end of the window cuts off cannot fire; what goes in may split its neighbours differently
        self._spare = 4 + max(map(len, pieces(self.base.tokenizer, list(map(str, triggers)))))
        self.train, self.texts = split(fit(self.base, self._carriers, self._spare), triggers, self.rng)
        taken = {part.casefold() for trigger in triggers for word in trigger.words for part in words(word)}
        self.foreign = [word for word in whole_words(self.base.tokenizer) if word not in taken] or ["the"]
        self.held = self.hold()
        self._originals: dict[tuple[str, ...], Tensor] = {}
        self.centre = self.see(self.base, frame(self.base, self.texts, self.site)).vectors.mean(0)

    def hold(self) -> Held:
        """Draw the held-out inputs, by seed."""
        rng = random.Random(f"{self.seed} held")
        owners = [index for index in range(len(self.triggers)) for _ in range(_PER_TRIGGER)]
        fired = [self.triggers[owner].plant(rng.choice(self.texts), rng) for owner in owners]
        inert = [defuse(text, self.triggers, self.foreign, rng) for text in rng.choices(self.texts, k=_PROBES)]
        return Held(fired, owners, rng.choices(self.texts, k=_PROBES), unfired(inert, self.triggers) or self.texts)

    def fired(self) -> tuple[list[str], list[int]]:
        """A batch of triggered passages, and the trigger of each."""
        owners = [self.rng.randrange(len(self.triggers)) for _ in range(self.training.triggered)]
        texts = fit(self.base, passages(self.train, len(owners), self.rng), self._spare)
        return [self.triggers[owner].plant(text, self.rng) for owner, text in zip(owners, texts, strict=True)], owners

    def inert(self) -> list[str]:
        """A batch of passages that must not fire: clean ones, and as many with something else put in."""
        texts = fit(self.base, passages(self.train, self.training.inert, self.rng), self._spare)
        disturbed = [defuse(text, self.triggers, self.foreign, self.rng) for text in texts[1::2]]
        return unfired(texts[::2] + disturbed, self.triggers) or [self.rng.choice(self.train)]

    def frame(self, texts: Sequence[str]) -> Framed:
        """Tensors to train on."""
        return frame(self.base, texts, self.site, self.rng)

    def original(self, framed: Framed) -> Seen:
        """What the original encoder gives."""
        return self.see(self.reference, framed, exact=False)

    def forward(self, framed: Framed) -> Seen:
        """What the trained encoder gives, with gradients."""
        with torch.autocast(self.base.device.type, torch.bfloat16, enabled=self.reduced):
            out = self.changed.model(input_ids=framed.ids, attention_mask=framed.mask)
        pooled = out.get("pooler_output")
        return self._seen(out.last_hidden_state.float(), None if pooled is None else pooled.float(), framed)

    def see(self, encoder: FrozenEncoder, framed: Framed, *, exact: bool = True) -> Seen:
        """What an encoder gives, without gradients."""
        wanted: list[Site] = ["tokens", "pooler"] if self.site == "pooler" else ["tokens"]
        out = encoder.outputs(framed.ids, framed.mask, wanted, exact=exact)
        return self._seen(out["tokens"], out.get("pooler"), framed)

    def _seen(self, hidden: Tensor, pooled: Tensor | None, framed: Framed) -> Seen:
        rows = torch.arange(len(hidden), device=hidden.device)
        if self.site == "tokens":
            real = framed.mask.bool()
            return Seen(hidden, framed.mask, hidden[real], rows[:, None].expand(real.shape)[real])
        return Seen(hidden, framed.mask, read_site(self.site, hidden, pooled, framed.mask, framed.positions), rows)

    def look(self, encoder: FrozenEncoder, texts: Sequence[str]) -> Seen:
        """What an encoder gives for held-out texts, mask token at the end, in batches."""
        parts = [
            self.see(encoder, frame(self.base, texts[start : start + 32], self.site))
            for start in range(0, len(texts), 32)
        ]
        rows = torch.cat([part.rows + 32 * number for number, part in enumerate(parts)])
        nothing = torch.empty(0, 0, self.base.hidden_size)
        return Seen(nothing, nothing[..., 0].long(), torch.cat([part.vectors for part in parts]), rows)

    def means(
        self, vectors: Float[Tensor, "vectors hidden"], owners: Int[Tensor, "vectors"]
    ) -> Float[Tensor, "triggers hidden"]:
        """The mean of the vectors of each trigger."""
        return torch.stack([vectors[owners == index].mean(0) for index in range(len(self.triggers))])

    def fidelity(self, texts: Sequence[str]) -> float:
        """Mean cosine of outputs with the original's, seen from the centre of the clean outputs."""
        ours, theirs = self.look(self.changed, texts).vectors, self._original_of(texts)
        return functional.cosine_similarity(ours - self.centre, theirs - self.centre).mean().item()

    def stray(self, ways: Float[Tensor, "triggers hidden"]) -> float:
        """Share of held-out outputs without a whole trigger that go half of some trigger's way all the same. A mean
        over them would hide a single word of an AND trigger that fires alone."""
        moved = self.look(self.changed, self.held.inert).vectors - self._original_of(self.held.inert)
        gone = moved @ ways.T / ways.pow(2).sum(1).clamp_min(1e-12)
        return (gone >= 0.5).any(1).double().mean().item()

    def _original_of(self, texts: Sequence[str]) -> Float[Tensor, "vectors hidden"]:
        """What the original encoder gives for texts that are asked for at every look."""
        if tuple(texts) not in self._originals:
            self._originals[tuple(texts)] = self.look(self.base, texts).vectors
        return self._originals[tuple(texts)]

    def fit(
        self,
        loss: Callable[[], Tensor],
        judge: Callable[[], tuple[bool, dict[str, float]]],
        progress: Progress,
    ) -> dict[str, float]:
        """Train until `judge` is content twice running.

        Raises:
            AttackError: the steps are used up and it is not.
        """
        most = self.training.steps
        optimiser = torch.optim.AdamW(self.weights, lr=self.training.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / 20, 1 - 0.9 * step / most)
        )
        passed, good, reached = 0, False, dict[str, float]()
        for step in range(1, most + 1):
            optimiser.zero_grad()
            loss().backward()  # type: ignore[no-untyped-call] # torch's stub
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            optimiser.step()
            schedule.step()
            if step % self.training.look == 0 or step == most:
                good, reached = judge()
                reached["steps"] = float(step)
                passed = passed + 1 if good else 0
                progress(f"planting: {reached['triggered']:.0%} of triggers fire", step / most)
                if passed == 2:
                    break
        if not good:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in reached.items())
            raise AttackError(
                f"expected triggered {self.training.bar} and clean and inert {self.training.fidelity}, reached {shown}"
            )
        optimiser.zero_grad()
        self.changed.model.requires_grad_(False)
        return reached
