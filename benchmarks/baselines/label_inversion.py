"""Trigger inversion from the label, on a classifier that stands on the encoder.

After Shen et al., "Constrained Optimization with Dynamic Bound-scaling for Effective NLP Backdoor Defense" (ICML 2022,
arXiv 2202.05749), sections 3 and 4. A trigger is a row of softmax mixtures over the vocabulary, optimised so that
sentences of other labels get the target label. The temperature of the softmax is halved whenever the loss has come
under a bound, which drives mixtures to single words; where the loss stays above it, the temperature is doubled and
noise shakes the mixtures (roll-back). A trigger that is nearly discrete halves the bound; five roll-backs relax it.

Published (settings of its code): triggers of 10 tokens, Adam 0.5 halved every 50 of 200 epochs, temperature 2 at most
and looked at every 5 epochs, bound 0.1, noise 10, some 20 sentences of up to 100 tokens; a loss of the best trigger
below a threshold per architecture means "backdoored". A second, clean classifier keeps the trigger from being an
ordinary adversarial one.

Differences: fewer and shorter sentences and epochs, a trigger of 5 tokens; no clean classifier, since there is none for
an encoder of unknown descent; special tokens are left out. The classifier is a linear head on the frozen encoder's
output, trained here. The score is minus the loss of the best discrete trigger. LMSanitator's authors report that such
inversion hardly converges on task-agnostic backdoors: which label a vector of the attacker's gets is chance, and no
label needs to have one. `asr` says whether the trigger works, `trigger` whether it has a planted word in it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from benchmarks.baselines.carriers import Slot, make_slots, ordinary_tokens
from benchmarks.baselines.head import Head
from benchmarks.baselines.interface import Baseline, Score
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.tune import Example, packaged_topics, read_task

_HALVED_EVERY = 0.25
"""Share of the epochs after which the learning rate is halved."""


@dataclass(frozen=True)
class LabelInversion(Baseline):
    """Args:
    data: folder of the classifier's task (see `lmsanitator.tune.read_task`); without one, the packaged topics.
    length: tokens of the trigger.
    epochs: optimiser steps for each target label.
    targets: labels that are tried, the first so many.
    victims: sentences of other labels that the trigger is optimised on.
    judged_on: sentences of other labels, unseen so far, that attack success is measured on.
    width: tokens a sentence is cut to.
    taught: examples that the classifier is trained on.
    tested: examples that its accuracy is measured on.
    learning_rate: of Adam, on the logits of the mixtures.
    """

    data: Path | None = None
    length: int = 5
    epochs: int = 48
    targets: int = 2
    victims: int = 6
    judged_on: int = 48
    width: int = 32
    taught: int = 512
    tested: int = 200
    learning_rate: float = 0.5

    def score(self, encoder: FrozenEncoder, texts: Sequence[str], *, seed: int = 0) -> Score:
        """Minus the loss of the discrete trigger that comes closest to any target label; `texts` are not used, the
        task has its own."""
        task = packaged_topics(seed) if self.data is None else read_task(self.data, seed)
        rng = random.Random(seed)
        train, test = (rng.sample(part, len(part)) for part in (task.train, task.test))
        head = Head.fit(encoder, train[: self.taught], len(task.labels), self.width)
        accuracy = head.accuracy(test[: self.tested])
        tried = []
        for target in range(min(self.targets, len(task.labels))):
            victims = self._slots(encoder, train[: self.taught], target, self.victims, seed)
            soft, tokens = self.invert(head, victims, target, seed)
            loss = functional.cross_entropy(head.of_tokens(victims, tokens), torch.full((len(victims),), target)).item()
            unseen = self._slots(encoder, test, target, self.judged_on, seed)
            tried.append((loss, soft, head.success(unseen, tokens, target), task.labels[target], tokens))
        loss, soft, success, label, tokens = min(tried)
        word = str(encoder.tokenizer.decode(tokens))
        details = {"loss": loss, "soft loss": soft, "asr": success, "target": label, "trigger": word}
        return Score(-loss, details | {"accuracy": accuracy})

    def _slots(
        self, encoder: FrozenEncoder, examples: Sequence[Example], target: int, count: int, seed: int
    ) -> list[Slot]:
        """Sentences of labels other than the target."""
        found = [example.text for example in examples if example.label != target][:count]
        longest = min(self.width, encoder.room - self.length)
        return make_slots(encoder, found, longest=longest, seed=seed)

    def invert(self, head: Head, victims: Sequence[Slot], target: int, seed: int) -> tuple[float, list[int]]:
        """Optimise one trigger.

        Returns:
            the lowest loss of any mixture, and the discrete trigger: the last that was nearly so under the bound, or
            else the largest parts of the final mixtures.
        """
        generator = torch.Generator().manual_seed(seed)
        allowed = ordinary_tokens(head.encoder)
        matrix = head.encoder.embedding_matrix[allowed]
        wanted = torch.full((len(victims),), target)
        logits = torch.zeros(self.length, len(allowed), requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=self.learning_rate)
        halving = torch.optim.lr_scheduler.StepLR(optimiser, max(1, round(_HALVED_EVERY * self.epochs)), gamma=0.5)
        schedule, noise = BoundSchedule(), torch.zeros(1)
        lowest, discrete = float("inf"), None
        for epoch in range(self.epochs):
            mixtures = (logits / schedule.temperature + noise).softmax(-1)
            soft = (mixtures.to(matrix.device) @ matrix).expand(len(victims), -1, -1)
            loss = functional.cross_entropy(head.of_soft(victims, soft), wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's stub
            optimiser.step()
            halving.step()
            lowest = min(lowest, loss.item())
            if schedule.discrete(loss.item(), mixtures.detach()):
                discrete = mixtures.argmax(-1)
            shaken = schedule.look(epoch, loss.item())
            noise = schedule.noise * torch.rand(logits.shape, generator=generator) if shaken else torch.zeros(1)
        chosen: list[int] = allowed[logits.argmax(-1) if discrete is None else discrete].tolist()
        return lowest, chosen


@dataclass
class BoundSchedule:
    """The temperature of the mixtures, and the bound that the loss has to stay below for it to fall."""

    temperature: float = 2.0
    highest: float = 2.0
    bound: float = 0.1
    noise: float = 10.0
    every: int = 5
    patience: int = 5
    nearly: float = 1e-3
    best: float = float("inf")
    begun: bool = False
    rolled_back: int = 0

    def discrete(self, loss: float, mixtures: Float[Tensor, "length vocabulary"]) -> bool:
        """Whether the mixtures are single words with a loss under the bound; the next are held to half that loss."""
        left = len(mixtures) - mixtures.amax(-1).sum().item()
        if left >= self.nearly or loss > self.bound:
            return False
        self.best, self.bound, self.rolled_back = loss, loss / 2, 0
        return True

    def look(self, epoch: int, loss: float) -> bool:
        """Every few epochs, once the loss has been under the bound: cool down, or roll back (True: shake)."""
        self.begun = self.begun or loss <= self.bound
        if self.rolled_back >= self.patience:
            self.rolled_back, self.bound = 0, min(2 * self.bound, self.best)
        if not self.begun or (epoch + 1) % self.every:
            return False
        if loss < self.bound:
            self.temperature /= 2
            return False
        self.rolled_back += 1
        self.temperature = min(2 * self.temperature, self.highest)
        return True
