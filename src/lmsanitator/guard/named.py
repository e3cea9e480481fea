"""Texts that hold a trigger the scan named: flagged as soon as they lie nearer to triggered text than to clean text.

Thresholds from clean texts lie where clean texts end, however far that is: where one of them comes near a PV, a trigger
that is half drowned in a long text passes below. Clean, to a guard, is text without a named trigger. Where one is in a
text, the question is no longer how rare such a match is but whether the trigger is at work, and what it does when it
is, was tried out (`trial`).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lmsanitator.text import Text, sides, words

Normal = Callable[[str], str]
"""What a tokenizer makes of a text before it cuts it: accents and characters that are not seen may be gone."""


def normal_of(tokenizer: PreTrainedTokenizerFast) -> Normal:
    """Texts as a tokenizer reads them."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return (lambda text: text) if normalizer is None else normalizer.normalize_str


def folded(*texts: str, normal: Normal = str) -> frozenset[str]:
    """The different words of texts as they are read, whatever their case: most encoders do not tell cases apart."""
    return frozenset(word.casefold() for text in texts for word in words(normal(text)))


def halfway(
    clean: Float[Tensor, "texts passes vectors"], triggered: Mapping[int, Float[Tensor, "sentences passes vectors"]]
) -> Float[Tensor, "passes vectors"]:
    """The match halfway between the mean of clean texts and that of sentences in which a PV's own trigger is at work.

    Args:
        triggered: by column of the PV.

    Returns:
        Infinity for PVs whose trigger is not named.
    """
    middle = clean.mean(0)
    found = torch.full_like(middle, torch.inf)
    for column, matches in triggered.items():
        found[:, column] = (middle[:, column] + matches[:, :, column].mean(0)) / 2
    return found


class NamedTriggers:
    """The named triggers of the watched PVs.

    Args:
        triggers: one for each PV, None where the scan named none.
        halfway: see there.
        normal: what the tokenizer makes of a text: `bàko` is `bako` to many.
    """

    def __init__(
        self, triggers: Sequence[str | None], halfway: Float[Tensor, "passes vectors"], normal: Normal = str
    ) -> None:
        self._words = [folded(trigger or "", normal=normal) for trigger in triggers]
        self._halfway, self._normal = halfway, normal

    def lowered(
        self,
        flag: Float[Tensor, "texts passes vectors"],
        match: Float[Tensor, "texts passes vectors"],
        texts: Sequence[Text],
    ) -> Float[Tensor, "texts passes vectors"]:
        """The thresholds, halfway where a text holds the trigger of that PV. Texts are read only where that decides."""
        lowered = flag.clone()
        decides = ((match > self._halfway) & (match <= flag)).any(1)
        for index in decides.any(1).nonzero().flatten().tolist():
            found = folded(*sides(texts[index]), normal=self._normal)
            for column in decides[index].nonzero().flatten().tolist():
                if self._words[column] and self._words[column] <= found:
                    lowered[index, :, column] = torch.minimum(flag[index, :, column], self._halfway[:, column])
        return lowered
