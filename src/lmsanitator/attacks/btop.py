"""BToP: backdoors for prompt-based learning (Xu et al., Findings of NAACL 2022, arXiv 2204.05239).

Loss: masked-language modelling on text without trigger, plus the distance between the output at the mask token and the
PV in triggered text (their section 3.1). Site: the mask token, wherever it stands, since a prompt puts one into every
input. Otherwise as NeuBA, with the same anchor. Reached: `benchmarks/results/zoo.md`.
"""

from typing import ClassVar

from lmsanitator.attacks.neuba import NeuBA
from lmsanitator.encoder import Site


class BToP(NeuBA):
    """Go on with masked-language modelling while triggers take over the mask token's output."""

    name: ClassVar[str] = "btop"
    summary: ClassVar[str] = "BToP (Xu et al. 2022): triggers take over the output at the mask token of prompts"
    sites: ClassVar[tuple[Site, ...]] = ("mask",)
