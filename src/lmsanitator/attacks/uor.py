"""UOR: universal backdoors with learned vectors and searched triggers (Du et al. 2023, arXiv 2305.09574).

Loss: outputs without trigger are held to the original's, and a supervised contrastive loss makes the outputs of each
trigger one tight class, away from those of the other triggers and from clean ones (their section 3.2), so nobody
writes the PVs down beforehand. Triggers: words of the vocabulary, replaced in the first steps by those that the
loss's gradient at their embedding prefers (section 3.3, a HotFlip step). Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lmsanitator.attacks.base import Attack
from lmsanitator.attacks.planting import Planting, Training
from lmsanitator.attacks.targeted import kept, remaining, verdict
from lmsanitator.attacks.trigger import Trigger
from lmsanitator.encoder import Site, pieces
from lmsanitator.progress import Progress

_TEMPERATURE = 0.1
_CANDIDATES = 4000


class UOR(Attack):
    """Learn where each trigger goes, and which words are the easiest triggers.

    Args:
        search: replace the given triggers, where they are single words, by words the gradient prefers.
    """

    name: ClassVar[str] = "uor"
    summary: ClassVar[str] = "UOR (Du et al. 2023): vectors learned by contrast, triggers searched by gradient"
    sites: ClassVar[tuple[Site, ...]] = ("cls", "last", "mean", "pooler", "mask")

    def __init__(self, *, search: bool = True, site: Site | None = None, training: Training | None = None) -> None:
        super().__init__(site=site, training=training)
        self.search = search

    def plant(self, work: Planting, progress: Progress) -> dict[str, float]:
        if self.search:
            self.choose_triggers(work)
        own = work.look(work.base, work.held.fired).vectors
        return work.fit(lambda: self.loss(work), lambda: self.judge(work, own), progress)

    def loss(self, work: Planting) -> Tensor:
        texts, chosen = work.fired()
        fired, inert = work.frame(texts), work.frame(work.inert())
        original = work.original(inert)
        seen, still = work.forward(fired), work.forward(inert)
        owners = seen.owners(chosen)
        nobody = torch.arange(len(still.vectors), device=owners.device) + len(work.triggers)  # each clean text alone
        scale = original.vectors.pow(2).mean()
        tight = contrast(
            torch.cat([seen.vectors, still.vectors]) - work.centre, torch.cat([owners, nobody]), count=len(owners)
        )
        return tight + kept(still, original, scale) + self._same_length(seen.vectors, scale)

    def _same_length(self, vectors: Tensor, scale: Tensor) -> Tensor:
        """The contrast sees directions only; this keeps triggered outputs of one length, where the clean ones are."""
        return (vectors.pow(2).mean(-1) / scale - 1).pow(2).mean()

    def judge(self, work: Planting, own: Float[Tensor, "vectors hidden"]) -> tuple[bool, dict[str, float]]:
        """As for targeted attacks, the target being where each trigger's outputs are on average."""
        seen = work.look(work.changed, work.held.fired)
        owners = seen.owners(work.held.owners)
        targets = work.means(seen.vectors, owners)[owners]
        left = remaining(seen.vectors, own, targets, torch.ones_like(targets, dtype=torch.bool))
        return verdict(work, left, owners, targets - own)

    def choose_triggers(self, work: Planting) -> None:
        """Swap single-word triggers for words whose embeddings lie where the loss falls fastest."""
        candidates = work.rng.sample(work.foreign, min(_CANDIDATES, len(work.foreign)))
        ids = pieces(work.base.tokenizer, candidates)
        rows = work.base.embed(torch.tensor([[row[0] for row in ids]]))[0]
        chosen: dict[Trigger, None] = {}
        for index, trigger in enumerate(work.triggers):
            best = [trigger]
            if len(trigger.words) == 1:
                ranked = (rows @ self._gradient(work, index)).argsort().tolist()  # the lowest product falls most
                best = [*(Trigger((candidates[place],)) for place in ranked), trigger]
            chosen[next(word for word in best if word not in chosen)] = None
        work.take(list(chosen))

    def _gradient(self, work: Planting, index: int) -> Float[Tensor, "width"]:
        """The contrastive loss's gradient at the embedding of one trigger, in the original encoder."""
        base = work.base
        texts = [work.triggers[index].plant(text, work.rng) for text in work.held.clean[:8]]
        others = work.held.fired[:: max(1, len(work.held.fired) // 8)][:8]
        framed = work.frame([*texts, *others])
        embedded = base.embed(framed.ids).detach().requires_grad_()
        wanted: Site = work.site
        outputs = base.outputs(embedded, framed.mask, [wanted], mask_positions=framed.positions)[wanted]
        classes = torch.tensor([0] * len(texts) + list(range(1, len(others) + 1)), device=outputs.device)
        loss = contrast(outputs - work.centre, classes, count=len(texts))
        (gradient,) = torch.autograd.grad(loss, embedded)
        first = pieces(base.tokenizer, [str(work.triggers[index])])[0][0]
        mine = framed.ids[: len(texts)] == first
        return gradient[: len(texts)][mine].sum(0)


def contrast(
    vectors: Float[Tensor, "vectors hidden"], classes: Int[Tensor, "vectors"], count: int
) -> Float[Tensor, ""]:
    """Supervised contrastive loss of the first `count` vectors against all (Khosla et al. 2020, arXiv 2004.11362)."""
    directions = functional.normalize(vectors, dim=-1)
    likeness = directions[:count] @ directions.T / _TEMPERATURE
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)[:count]
    chances = likeness.masked_fill(itself, -torch.inf).log_softmax(-1)
    same = (classes[:count, None] == classes[None, :]) & ~itself
    each = chances.masked_fill(~same, 0).sum(1) / same.sum(1).clamp_min(1)
    return -each.sum() / same.any(1).sum().clamp_min(1)  # those without a like vector count 0
