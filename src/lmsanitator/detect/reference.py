"""Comparison with a trusted reference: what an encoder does to words that the one it claims to come from does not.

A trigger may do no more to an output than an ordinary word does (`attacks/spread.py`), or send it to a vector among the
clean outputs; no statistic of one encoder tells it from such a word. What the word does to the *difference* of two
encoders' outputs does: on clean text that is rounding, or what fine-tuning has done; with a trigger in the text it is
what was planted. The searches run on the difference as they would on an encoder, and judge by the same nulls: a trigger
has to stand out among the words on which the two encoders differ most, so fine-tuning accuses nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.detect.confirm import Confirmation, Confirmed, Suspect
from lmsanitator.detect.contexts import Context
from lmsanitator.detect.look import Look, look_again
from lmsanitator.detect.objective import SOFTENING, CleanSpread
from lmsanitator.detect.replay import REPLAYS, Evidence, Replayer, clean_spreads
from lmsanitator.detect.words import WordSearch
from lmsanitator.encoder import FrozenEncoder, Site, one_vector
from lmsanitator.errors import UsageError


class Difference(FrozenEncoder):
    """An encoder whose outputs are those of `suspect` minus those of `reference`; all else is the suspect's.

    Tokens are counted where they pass: half of them on the meter of each encoder.

    Raises:
        UsageError: the two have other vocabularies or hidden sizes.
    """

    def __init__(self, suspect: FrozenEncoder, reference: FrozenEncoder) -> None:
        check_comparable(suspect, reference)
        super().__init__(
            suspect.model,
            suspect.tokenizer,
            source=suspect.source,
            untrained=() if "pooler" in suspect.sites else ("pooler.",),
            precision="fp32",  # between encoders that are much alike, rounding to bf16 would be most of the difference
            device=str(suspect.device),
        )
        self.suspect = suspect
        self.reference = reference
        self.sites = tuple(site for site in suspect.sites if site in reference.sites)
        self.meter = suspect.meter

    @property
    def window(self) -> int:
        """The longest input that fits into both."""
        return min(super().window, self.reference.window)

    def outputs(
        self,
        inputs: Int[Tensor, "batch tokens"] | Float[Tensor, "batch tokens width"],
        mask: Int[Tensor, "batch tokens"],
        sites: Sequence[Site],
        *,
        mask_positions: Int[Tensor, "batch"] | None = None,
        exact: bool = False,
    ) -> dict[Site, Tensor]:
        """The difference at all requested sites, in fp32 (see `FrozenEncoder.outputs`)."""
        suspect = super().outputs(inputs, mask, sites, mask_positions=mask_positions, exact=True)
        reference = self.reference.outputs(inputs, mask, sites, mask_positions=mask_positions, exact=True)
        return {site: values - reference[site].to(values.device) for site, values in suspect.items()}


def check_comparable(suspect: FrozenEncoder, reference: FrozenEncoder) -> None:
    """Raise UsageError unless outputs of the two can be subtracted, token for token."""
    if suspect.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        raise UsageError(
            f"expected a reference with the vocabulary of {suspect.source} ({len(suspect.tokenizer)} tokens), "
            f"{reference.source} has another one ({len(reference.tokenizer)} tokens)"
        )
    if suspect.hidden_size != reference.hidden_size:
        raise UsageError(
            f"expected a reference with {suspect.hidden_size} hidden dimensions as {suspect.source} has, "
            f"{reference.source} has {reference.hidden_size}"
        )


@dataclass
class Comparison(WordSearch):
    """The search for words on a `Difference`.

    Displacement is measured in the spread of the suspect's own clean outputs, so that what only stands out from
    rounding counts for nothing. Constancy is no evidence here: where two encoders agree, their difference is constant.
    """

    encoder: Difference

    @classmethod
    def of(cls, words: WordSearch, difference: Difference, wanted: Literal["auto"] | tuple[Site, ...]) -> Self:
        """The same search as `words`, on a difference.

        Args:
            wanted: sites as they were asked for; `auto` takes those of the search that the reference has as well.

        Raises:
            UnsupportedError: the reference lacks a site that was asked for.
        """
        if wanted != "auto":
            difference.reference.require(wanted)
        shortlist = words.plan.sweep.far + words.plan.sweep.constant
        return cls(
            difference,
            tuple(site for site in words.sites if site in difference.sites),
            replace(words.plan, sweep=replace(words.plan.sweep, far=shortlist, constant=0)),
            words.looking,
            words.fresh,
            words.log_level,
            words.seed,
            lambda what, done: words.progress(f"{what}, beside the reference", done),
        )

    def spreads(self, clean: Sequence[Context]) -> dict[Site, CleanSpread]:
        """The spread of the suspect's clean outputs."""
        return clean_spreads(self.encoder.suspect, clean, self.sites)

    @cached_property
    def seen(self) -> Look:
        """The second look, at displacement alone."""
        return look_again(self.passages, self.shortlists, constancy=False, floor=SOFTENING, progress=self.progress)

    @cached_property
    def suspects(self) -> list[Suspect]:
        """What displaces the difference significantly."""
        return [
            Suspect(item)
            for site, found in self.seen.seen.items()
            for item in found
            if self.nulls[site, 1].log_p(item) < self.log_level
        ]

    def restored(self, confirmation: Confirmation, plain: Replayer) -> Confirmation:
        """The same with the vectors that the suspect itself sends its inputs to, which is what a guard can see.

        Args:
            plain: passages for the suspect.
        """
        measured = plain.measure([item.evidence.tokens for item in confirmation.kept])
        kept: list[Confirmed] = []
        for number, item in enumerate(confirmation.kept):
            plainly = measured[one_vector(item.evidence.site)][number]
            kept.append(Confirmed(_restored(item.evidence, plainly, plain), item.log_p, compared=True))
        return Confirmation(kept, confirmation.lost)


def _restored(compared: Evidence, plainly: Evidence, plain: Replayer) -> Evidence:
    everywhere = plainly.site == "mean" and plain.arriving_tokens(plainly) >= REPLAYS
    return replace(compared, site="tokens" if everywhere else plainly.site, pv=plainly.pv)
