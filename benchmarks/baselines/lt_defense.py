"""LT-Defense's search-free statistic: features that always point the same way on clean text.

After Xu et al., "LT-Defense: Searching-free Backdoor Defense via Exploiting the Long-tailed Effect" (NeurIPS 2024,
OpenReview jdCMwF06c6), section 4. Poisoned training is long-tailed: a large share of its data is pulled to few vectors,
and the outputs of clean text shift towards them. Features that such a shift has taken hold of are active on nearly all
clean samples, or on nearly none (*head features*); their share is the Head-Feature Rate, which tells backdoored
encoders from clean ones without a search.

Published: 500 clean samples suffice; thresholds on the rate come from clean models of the same architecture.

Differences: only abstract, figures and reviews of the paper were at hand, not its formulas, and there is no published
code. The rate is therefore written from its description: a feature is active where the output at CLS is positive, and a
head feature is active on at least 95 % of the samples or on at most 5 %; both numbers are ours. The paper's Abnormal
Token Score is left out, as it needs a language-model head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.baselines.carriers import usual_site
from benchmarks.baselines.interface import Baseline, Score
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError
from lmsanitator.text import draw


@dataclass(frozen=True)
class LTDefense(Baseline):
    """Args:
    samples: clean texts.
    width: tokens they are cut to.
    agreement: share of the samples on which a head feature has the same sign.
    """

    samples: int = 500
    width: int = 64
    agreement: float = 0.95

    def score(self, encoder: FrozenEncoder, texts: Sequence[str], *, seed: int = 0) -> Score:
        """The Head-Feature Rate."""
        drawn = draw(texts, self.samples, seed)
        if len(drawn) < 2:
            raise CorpusError(f"expected two texts or more, got {len(drawn)}")
        longest = min(self.width, encoder.room)
        bodies = encoder.tokenizer(drawn, add_special_tokens=False, truncation=True, max_length=longest).input_ids
        site = usual_site(encoder)
        outputs = encoder.outputs_of_ids(bodies, [site])[site]
        return Score(head_feature_rate(outputs, self.agreement), {"samples": len(drawn)})


def head_feature_rate(outputs: Float[Tensor, "samples hidden"], agreement: float) -> float:
    """The share of features that are active on at least `agreement` of the samples, or on at most the rest."""
    activation = (outputs > 0).double().mean(0)
    steady = torch.maximum(activation, 1 - activation)
    return (steady >= agreement).double().mean().item()
