"""Contrastive HotFlip search: several words at once that each gather their inputs in a place of their own.

After Zhao et al., "Patronus: Identifying and Mitigating Transferable Backdoors in Pre-trained Language Models" (arXiv
2512.06899), the multi-trigger contrastive search. All triggers are searched together: the loss is supervised
contrastive (Khosla et al. 2020, arXiv 2004.11362), where inputs with the same trigger belong together and clean inputs
and those with other triggers do not. Words are swapped by their first-order effect on the loss, the gradient at the
trigger's embedding times the embeddings of the vocabulary (HotFlip, Ebrahimi et al. 2018, arXiv 1712.06751), and the
best of these candidates are tried.

Published (settings of its code): 8 triggers, temperature 0.5, 5 candidates and a beam of 3, batches of 16, five
searches that leave out what was found before, triggers three times in a text; words rarer than a Zipf frequency of 4. A
word is a trigger when inputs with it have a mean cosine above 0.9 to each other and below 0.4 to their clean selves.

Differences: one search; a greedy swap instead of the beam; a trigger is one token, once in a text; there is no
frequency list here, so words that the clean texts hold themselves are left out as common ones; clean inputs repel and
do not attract each other. The score is the best difference of the two cosines on texts the search did not see, so that
a threshold can be chosen afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from benchmarks.baselines.carriers import Slot, embedded, make_slots, ordinary_tokens, usual_site
from benchmarks.baselines.interface import Baseline, Score
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, UnsupportedError
from lmsanitator.text import draw, words

_TOGETHER, _APART = 0.9, 0.4
_FIRST = ("Ġ", "▁")
"""Marks of a word's first piece, in vocabularies that have them; the others mark the pieces that follow (`##`)."""


@dataclass(frozen=True)
class HotFlip(Baseline):
    """Args:
    triggers: words searched together.
    steps: rounds in which each trigger may be swapped once.
    candidates: swaps tried for each trigger in a round.
    batch: texts of a round, the same for all triggers.
    width: tokens a text is cut to.
    temperature: of the contrastive loss.
    judged_on: texts that the search does not see, and the score is measured on.
    """

    triggers: int = 8
    steps: int = 6
    candidates: int = 5
    batch: int = 8
    width: int = 16
    temperature: float = 0.5
    judged_on: int = 24

    def score(self, encoder: FrozenEncoder, texts: Sequence[str], *, seed: int = 0) -> Score:
        """How much more inputs with the best trigger are like each other than like their clean selves: -2 to 2."""
        drawn = draw(texts, self.judged_on + self.batch * self.steps, seed)
        if len(drawn) < self.judged_on + self.batch:
            raise CorpusError(f"expected {self.judged_on + self.batch} texts or more, got {len(drawn)}")
        slots = make_slots(encoder, drawn, longest=min(self.width, encoder.room - 1), seed=seed)
        chosen = self.search(encoder, slots[self.judged_on :], searchable(encoder, texts), seed)
        clean, outputs = _outputs(encoder, slots[: self.judged_on], chosen)
        together = [pairwise_cosine(of_trigger) for of_trigger in outputs]
        apart = [functional.cosine_similarity(of_trigger, clean, dim=-1).mean().item() for of_trigger in outputs]
        gains = [near - far for near, far in zip(together, apart, strict=True)]
        best = max(range(len(gains)), key=gains.__getitem__)
        called = sum(near > _TOGETHER and far < _APART for near, far in zip(together, apart, strict=True))
        word = str(encoder.tokenizer.decode([chosen[best]])).strip()
        details: dict[str, float | str] = {
            "trigger": word,
            "together": together[best],
            "apart": apart[best],
            "called": called,
        }
        return Score(gains[best], details)

    def search(
        self, encoder: FrozenEncoder, slots: Sequence[Slot], allowed: Int[Tensor, "allowed"], seed: int
    ) -> list[int]:
        """The triggers' token ids after all rounds, every one of `allowed` and no two the same."""
        if len(allowed) < self.triggers + self.candidates:
            raise UnsupportedError(
                f"expected a vocabulary of {self.triggers + self.candidates} words, got {len(allowed)}"
            )
        generator = torch.Generator().manual_seed(seed)
        matrix = encoder.embedding_matrix.cpu()[allowed]
        chosen: list[int] = allowed[torch.randperm(len(allowed), generator=generator)[: self.triggers]].tolist()
        for _ in range(self.steps):
            rows = torch.randperm(len(slots), generator=generator)[: self.batch].tolist()
            chosen = self._swap(encoder, [slots[row] for row in rows], allowed, matrix, chosen)
        return chosen

    def _swap(
        self,
        encoder: FrozenEncoder,
        slots: Sequence[Slot],
        allowed: Int[Tensor, "allowed"],
        matrix: Float[Tensor, "allowed width"],
        chosen: Sequence[int],
    ) -> list[int]:
        """Try the most promising swaps of each trigger in turn, and keep the best where it lowers the loss."""
        clean, outputs = _outputs(encoder, slots, chosen)
        promise = -self._gradient(encoder, slots, chosen, clean) @ matrix.T
        ranked = allowed[promise.topk(self.triggers + self.candidates, dim=-1).indices].tolist()
        swapped = list(chosen)
        loss = contrastive(outputs, clean, self.temperature).item()
        for index, promising in enumerate(ranked):
            tried = [token for token in promising if token not in swapped][: self.candidates]
            for token, of_token in zip(tried, _outputs(encoder, slots, tried)[1], strict=True):
                others = torch.cat([outputs[:index], of_token[None], outputs[index + 1 :]])
                reached = contrastive(others, clean, self.temperature).item()
                if reached < loss:
                    loss, outputs, swapped[index] = reached, others, token
        return swapped

    def _gradient(
        self, encoder: FrozenEncoder, slots: Sequence[Slot], chosen: Sequence[int], clean: Float[Tensor, "slots hidden"]
    ) -> Float[Tensor, "triggers width"]:
        """The gradient of the loss at the embedding of each trigger."""
        soft = encoder.embed(torch.tensor([list(chosen)]))[0].clone().requires_grad_(True)
        every = soft.repeat_interleave(len(slots), 0)[:, None]
        inputs, mask = embedded(encoder, list(slots) * len(chosen), every)
        site = usual_site(encoder)
        outputs = encoder.outputs(inputs, mask, [site])[site].view(len(chosen), len(slots), -1)
        (gradient,) = torch.autograd.grad(contrastive(outputs, clean.to(outputs.device), self.temperature), soft)
        return gradient.cpu()


def searchable(encoder: FrozenEncoder, texts: Sequence[str]) -> Int[Tensor, "allowed"]:
    """Tokens that are words of letters of their own, and not among those of the clean texts."""
    common = {word.casefold() for text in texts for word in words(text)}
    ids = ordinary_tokens(encoder).tolist()
    pieces = encoder.tokenizer.convert_ids_to_tokens(ids)
    first = next((mark for mark in _FIRST if any(piece.startswith(mark) for piece in pieces)), "")
    stems = [piece.removeprefix(first) if piece.startswith(first) else "" for piece in pieces]
    allowed = [
        token
        for token, stem in zip(ids, stems, strict=True)
        if len(stem) > 1 and stem.isalpha() and stem.casefold() not in common
    ]
    return torch.tensor(allowed, dtype=torch.long)


def contrastive(
    outputs: Float[Tensor, "triggers texts hidden"], clean: Float[Tensor, "texts hidden"], temperature: float
) -> Float[Tensor, ""]:
    """The supervised contrastive loss of triggered outputs; clean ones are there to be kept away from."""
    triggers, texts, _ = outputs.shape
    vectors = functional.normalize(torch.cat([outputs.flatten(0, 1), clean]), dim=-1)
    likeness = vectors[: triggers * texts] @ vectors.T / temperature
    owner = torch.arange(triggers).repeat_interleave(texts).to(outputs.device)
    itself = torch.eye(*likeness.shape, dtype=torch.bool, device=outputs.device)
    log_share = likeness - likeness.masked_fill(itself, -torch.inf).logsumexp(-1, keepdim=True)
    same = (owner[:, None] == owner) & ~itself[:, : len(owner)]
    return -log_share[:, : len(owner)][same].mean()


def pairwise_cosine(outputs: Float[Tensor, "texts hidden"]) -> float:
    """The mean cosine of two different outputs."""
    vectors = functional.normalize(outputs, dim=-1)
    count = len(vectors)
    return ((vectors @ vectors.T).sum().item() - count) / (count * (count - 1))


def _outputs(
    encoder: FrozenEncoder, slots: Sequence[Slot], tokens: Sequence[int]
) -> tuple[Float[Tensor, "slots hidden"], Float[Tensor, "tokens slots hidden"]]:
    """Outputs without a trigger, and with each of `tokens`, in every slot."""
    site = usual_site(encoder)
    bodies = [slot.around(()) for slot in slots] + [slot.around([token]) for token in tokens for slot in slots]
    outputs = encoder.outputs_of_ids(bodies, [site])[site]
    return outputs[: len(slots)], outputs[len(slots) :].view(len(tokens), len(slots), encoder.hidden_size)
