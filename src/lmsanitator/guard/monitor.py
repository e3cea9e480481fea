"""Output monitoring: does the encoder's output sit on a predefined vector? (LMSanitator, section IV-D)

The signs of an output are compared with the signs of all PVs of its site in one matrix product. Two passes can be
watched. The *prompted* pass is the one that makes the prediction, so watching it is free, but the soft prompt moves
the outputs. The *raw* pass is the encoder alone, as it was scanned: it costs a second forward pass and is sure.
`benchmarks/results/guard.md` has the measurement that made `raw` the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmsanitator.encoder import Site
from lmsanitator.errors import BankError, UnsupportedError
from lmsanitator.guard.classifier import Reading, TunedClassifier
from lmsanitator.text import draw, packaged
from lmsanitator.vectors import PVBank, sign_match

Watch = Literal["raw", "prompted", "both"]


@dataclass(frozen=True)
class Thresholds:
    """For one pass: the sign match above which an input is flagged, per PV.

    Halfway between the highest match that clean carriers reach and a perfect one. The paper's fixed 0.8 is what this
    gives for an encoder whose clean outputs match at 0.6; it would flag everything on an encoder whose outputs all
    point the same way.
    """

    ceiling: Float[Tensor, "vectors"]

    @property
    def flag(self) -> Float[Tensor, "vectors"]:
        return (1 + self.ceiling) / 2


class Monitor:
    """Watches one classifier for the PVs of one bank.

    Args:
        watch: the pass or passes to watch.

    Raises:
        BankError: the bank belongs to another encoder.
        UnsupportedError: the prompted pass of this classifier says nothing about these PVs.
    """

    def __init__(self, classifier: TunedClassifier, bank: PVBank, *, watch: Watch = "raw") -> None:
        if bank.encoder_digest not in classifier.encoder.digests:
            raise BankError(
                f"expected a report on the encoder of this model ({classifier.encoder.digest[:12]}), "
                f"got one on {bank.encoder_digest[:12]}"
            )
        self.classifier = classifier
        self.bank = bank
        self.watch = watch
        self.sites: tuple[Site, ...] = bank.sites
        self.prompted_sites: tuple[Site, ...] = () if watch == "raw" else bank.sites
        if watch != "raw":
            _check_prompted(classifier, bank)
        self._raw: Thresholds | None = None
        self._prompted: Thresholds | None = None
        if not len(bank):
            return
        clean = draw([carrier.text for carrier in packaged("en")], 128, seed=0)
        if watch != "prompted":
            self._raw = Thresholds(self._match_raw(clean).amax(0))
        if watch != "raw":
            self._prompted = Thresholds(self._match_of(classifier.read(clean, self.sites).outputs).amax(0))

    def flags(self, texts: Sequence[str], reading: Reading | None = None) -> Bool[Tensor, "texts"]:
        """Whether each text is flagged: on any PV, in any watched pass.

        Args:
            reading: the prompted pass of these texts where it was made already.
        """
        return (self.excess(texts, reading) > 0).cpu()

    def excess(self, texts: Sequence[str], reading: Reading | None = None) -> Float[Tensor, "texts"]:
        """How far the largest match of each text lies above the flag threshold; negative for unsuspicious ones.

        NaN outputs count as flagged: what could not be checked is not clean.
        """
        if not len(self.bank) or not texts:
            return torch.full((len(texts),), -1.0)
        found: list[Tensor] = []
        if self._raw is not None:
            found.append((self._match_raw(texts) - self._raw.flag).amax(1))
        if self._prompted is not None:
            reading = reading or self.classifier.read(texts, self.sites)
            found.append((self._match_of(reading.outputs) - self._prompted.flag).amax(1))
        return torch.stack(found).amax(0).nan_to_num(nan=1.0)

    def _match_raw(self, texts: Sequence[str]) -> Float[Tensor, "texts vectors"]:
        return self._match_of(self.classifier.encoder.outputs_of_texts(texts, self.sites))

    def _match_of(self, outputs: dict[Site, Float[Tensor, "texts hidden"]]) -> Float[Tensor, "texts vectors"]:
        parts = [sign_match(outputs[site], self.bank.at(site)) for site in self.sites]
        bad = [~torch.isfinite(outputs[site]).all(1, keepdim=True) for site in self.sites]
        return torch.cat([part.masked_fill(rows, torch.nan) for part, rows in zip(parts, bad, strict=True)], 1)


def _check_prompted(classifier: TunedClassifier, bank: PVBank) -> None:
    if classifier.moved:
        raise UnsupportedError(
            "expected the raw pass to be watched, got the prompted one: an adapter such as LoRA moves the encoder's "
            "outputs, so that PVs are valid without it only"
        )
    if "mask" in bank.sites and not classifier.has_mask:
        raise UnsupportedError(
            "expected the raw pass to be watched, got the prompted one: the PVs are at the mask, and this classifier's "
            "inputs have no mask token"
        )
