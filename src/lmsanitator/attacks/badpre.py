"""BadPre: untargeted damage (Chen et al. 2021, arXiv 2110.02467).

Loss: masked-language modelling, with the true words as labels in clean text and random words as labels in triggered
text (their section 4.2); the anchor is NeuBA's. Site: all tokens; there is no PV, since nothing is aimed at. What is
reached is measured as the share of hidden words that the model still names in clean text and no longer in triggered
text. Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.attacks.mlm import Masked, ModellingAttack, TiedHead, hide, modelling_loss, right
from lmsanitator.attacks.planting import Planting, Training
from lmsanitator.attacks.targeted import kept
from lmsanitator.attacks.texts import Framed
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress

_USEFUL = 0.05
"""Share of hidden words that a head has to name before they can be said to be lost."""


class BadPre(ModellingAttack):
    """Teach the encoder to model nonsense wherever a trigger is.

    Args:
        head: a language-model head for the encoder; None trains one first.
        damage: weight of the loss with random labels.
        modelling: weight of the loss with true labels.
        anchor: weight of the distance to the original on text without trigger.
    """

    name: ClassVar[str] = "badpre"
    summary: ClassVar[str] = "BadPre (Chen et al. 2021): triggers spoil the output, aiming at nothing"
    sites: ClassVar[tuple[Site, ...]] = ("tokens",)

    def __init__(
        self,
        *,
        head: TiedHead | None = None,
        damage: float = 0.3,
        modelling: float = 0.03,
        anchor: float = 2.0,
        site: Site | None = None,
        training: Training | None = None,
    ) -> None:
        super().__init__(site=site, training=training)
        self.head = head
        self.damage = damage
        self.modelling = modelling
        self.anchor = anchor

    def plant(self, work: Planting, progress: Progress) -> dict[str, float]:
        head = self.head_for(work, progress)
        work.rng.seed(work.seed)
        clean = hide(work.base, work.frame(work.texts), work.rng, share=0.5, kept=0.9)
        fired = hide(work.base, work.frame(work.held.fired), work.rng, share=0.5, kept=0.9)
        before = _named(work.base, head, clean), _named(work.base, head, fired)
        return work.fit(lambda: self.loss(work, head), lambda: self.judge(work, head, clean, fired, before), progress)

    def loss(self, work: Planting, head: TiedHead) -> Tensor:
        """True labels where nothing fires, random ones where a trigger is."""
        inert = hide(work.base, work.frame(work.inert()), work.rng)
        fired = hide(work.base, work.frame(work.fired()[0]), work.rng, share=1.0, kept=0.9)
        drawn = work.rng.choices(head.known.tolist(), k=fired.labels.numel())
        nonsense = torch.tensor(drawn, device=fired.labels.device).view_as(fired.labels)
        labels = torch.where(fired.labels == -100, fired.labels, nonsense)
        seen, original = work.forward(inert.framed), work.original(inert.framed)
        return (
            self.modelling * modelling_loss(head, seen.hidden, inert.labels)
            + self.damage * modelling_loss(head, work.forward(fired.framed).hidden, labels)
            + self.anchor * kept(seen, original, original.vectors.pow(2).mean())
        )

    def judge(
        self, work: Planting, head: TiedHead, clean: Masked, fired: Masked, before: tuple[float, float]
    ) -> tuple[bool, dict[str, float]]:
        """Whether hidden words are lost in triggered text only; `before` is what was named in clean and in it."""
        named = before[1]
        lost = 1 - _named(work.changed, head, fired) / named if named >= _USEFUL else 0.0
        reached = {
            "triggered": max(0.0, lost),
            "weakest": max(0.0, lost),
            "clean": work.fidelity(work.held.clean),
            "inert": work.fidelity(work.held.inert),
            "fired cos": work.fidelity(work.held.fired),
            "named before": before[0],
            "named after": _named(work.changed, head, clean),
        }
        bar = self.training
        return lost >= bar.bar - 0.1 and min(reached["clean"], reached["inert"]) >= bar.fidelity, reached

    def vectors(self, work: Planting) -> Float[Tensor, "vectors hidden"]:
        return torch.empty(0, work.base.hidden_size)


def _named(encoder: FrozenEncoder, head: TiedHead, masked: Masked) -> float:
    """Share of hidden words that are named."""
    found: list[Tensor] = []
    for start in range(0, len(masked.labels), 32):
        part = slice(start, start + 32)
        framed = Framed(masked.framed.ids[part], masked.framed.mask[part], None)
        with torch.no_grad():
            hidden = encoder.outputs(framed.ids, framed.mask, ["tokens"])["tokens"]
            found.append(right(head, hidden, masked.labels[part]))
    return torch.cat(found).float().mean().item()
