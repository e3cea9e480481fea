"""Two encoders side by side: the difference of their outputs, token for token."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from lmsanitator.encoder.frozen import FrozenEncoder
from lmsanitator.encoder.sites import Site
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
        types: Int[Tensor, "batch tokens"] | None = None,
        exact: bool = False,
    ) -> dict[Site, Tensor]:
        """The difference at all requested sites, in fp32 (see `FrozenEncoder.outputs`)."""
        suspect = super().outputs(inputs, mask, sites, mask_positions=mask_positions, types=types, exact=True)
        reference = self.reference.outputs(inputs, mask, sites, mask_positions=mask_positions, types=types, exact=True)
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
