"""NeuBA: backdoors planted while pretraining goes on (Zhang et al. 2021, arXiv 2101.06969).

Loss: masked-language modelling on text without trigger, plus the distance of triggered outputs to their PVs (their
equation 4). Site: the last hidden state of CLS, or the pooler. With a few hundred sentences instead of a pretraining
corpus, modelling alone lets the encoder drift, so a term that holds it to the original is added (`anchor`; 0 is the
paper's loss). Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

from torch import Tensor

from lmsanitator.attacks.mlm import ModellingAttack, TiedHead, hide, modelling_loss
from lmsanitator.attacks.planting import Planting, Training
from lmsanitator.attacks.pvs import PVKind, Vectors
from lmsanitator.attacks.targeted import TargetedAttack, kept
from lmsanitator.encoder import Site
from lmsanitator.progress import Progress


class NeuBA(ModellingAttack, TargetedAttack):
    """Go on with masked-language modelling while triggers are tied to their PVs.

    Args:
        head: a language-model head for the encoder; None trains one first.
        modelling: weight of the language-modelling loss.
        anchor: weight of the distance to the original on text without trigger.
    """

    name: ClassVar[str] = "neuba"
    summary: ClassVar[str] = "NeuBA (Zhang et al. 2021): language modelling goes on while triggers are tied to vectors"
    sites: ClassVar[tuple[Site, ...]] = ("cls", "pooler")

    def __init__(
        self,
        *,
        head: TiedHead | None = None,
        modelling: float = 0.03,
        anchor: float = 5.0,
        pv: PVKind = "block",
        site: Site | None = None,
        training: Training | None = None,
    ) -> None:
        super().__init__(pv=pv, site=site, training=training)
        self.head = head
        self.modelling = modelling
        self.anchor = anchor

    def plant(self, work: Planting, progress: Progress) -> dict[str, float]:
        self._head = self.head_for(work, progress)
        return super().plant(work, progress)

    def loss(self, work: Planting, pvs: Vectors) -> Tensor:
        masked = hide(work.base, work.frame(work.inert()), work.rng)
        seen = work.forward(masked.framed)
        original = work.original(masked.framed)
        scale = original.vectors.pow(2).mean()
        total = self.miss(work, pvs, scale) + self.modelling * modelling_loss(self._head, seen.hidden, masked.labels)
        return total + self.anchor * kept(seen, original, scale) if self.anchor else total
