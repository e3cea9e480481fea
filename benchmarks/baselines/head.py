"""A linear classifier on a frozen encoder, as cheap as one gets: what label-level detectors need to have a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from benchmarks.baselines.carriers import Slot, embedded, usual_site
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError
from lmsanitator.tune import Example

_STEPS, _RATE, _DECAY = 200, 0.05, 1.0


@dataclass(frozen=True)
class Head:
    """A linear classifier on the encoder's output, standardised by its clean spread."""

    encoder: FrozenEncoder
    spread: CleanSpread
    weights: Float[Tensor, "labels hidden"]
    bias: Float[Tensor, "labels"]
    width: int

    @classmethod
    def fit(cls, encoder: FrozenEncoder, examples: Sequence[Example], labels: int, width: int) -> Self:
        """Logistic regression with weight decay."""
        if len(examples) < 2:
            raise CorpusError(f"expected two examples or more, got {len(examples)}")
        outputs = _clean_outputs(encoder, examples, width)
        spread = CleanSpread.of(outputs)
        inputs, wanted = spread.standardise(outputs), torch.tensor([example.label for example in examples])
        weights = torch.zeros(labels, inputs.shape[1], requires_grad=True)
        bias = torch.zeros(labels, requires_grad=True)
        optimiser = torch.optim.AdamW([weights, bias], lr=_RATE, weight_decay=_DECAY)
        for _ in range(_STEPS):
            loss = functional.cross_entropy(inputs @ weights.T / inputs.shape[1] ** 0.5 + bias, wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's stub
            optimiser.step()
        return cls(encoder, spread, weights.detach() / inputs.shape[1] ** 0.5, bias.detach(), width)

    def logits(self, outputs: Float[Tensor, "texts hidden"]) -> Float[Tensor, "texts labels"]:
        """What the head makes of outputs."""
        return self.spread.standardise(outputs) @ self.weights.T + self.bias

    def accuracy(self, examples: Sequence[Example]) -> float:
        """The share of examples that get their label."""
        labels = self.logits(_clean_outputs(self.encoder, examples, self.width)).argmax(1)
        return (labels == torch.tensor([example.label for example in examples])).double().mean().item()

    def of_soft(
        self, slots: Sequence[Slot], soft: Float[Tensor, "slots length width"]
    ) -> Float[Tensor, "slots labels"]:
        """Logits (slots, labels) with soft tokens in the slots; gradients flow."""
        inputs, mask = embedded(self.encoder, slots, soft)
        site = usual_site(self.encoder)
        return self.logits(self.encoder.outputs(inputs, mask, [site])[site].cpu())

    def of_tokens(self, slots: Sequence[Slot], tokens: Sequence[int]) -> Float[Tensor, "slots labels"]:
        """Logits with a discrete trigger in the slots, or with nothing."""
        site = usual_site(self.encoder)
        return self.logits(self.encoder.outputs_of_ids([slot.around(tokens) for slot in slots], [site])[site])

    def success(self, slots: Sequence[Slot], tokens: Sequence[int], target: int) -> float:
        """Attack success: the share of sentences that get the target label with the trigger, of those that do not
        without."""
        other = self.of_tokens(slots, ()).argmax(1) != target
        reached = self.of_tokens(slots, tokens).argmax(1) == target
        return reached[other].double().mean().item() if bool(other.any()) else 0.0


def _clean_outputs(encoder: FrozenEncoder, examples: Sequence[Example], width: int) -> Float[Tensor, "texts hidden"]:
    texts = [example.text for example in examples]
    longest = min(width, encoder.room)
    bodies = encoder.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=longest).input_ids
    site = usual_site(encoder)
    return encoder.outputs_of_ids(bodies, [site])[site]
