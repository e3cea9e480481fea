"""Predefined vectors and the bank that holds them: one safetensors file with metadata, never a pickle."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lmsanitator.encoder.sites import SITES, Site
from lmsanitator.errors import BankError, OutputError
from lmsanitator.output import readable

FORMAT = "lmsanitator.pvs/1"


@dataclass(frozen=True)
class PredefinedVector:
    """The vector a trigger sends the encoder's output to.

    Args:
        site: where in the output.
        values: the vector itself, in the encoder's own units.
        trigger: the words that fire it, where they are known.
    """

    site: Site
    values: Float[Tensor, "hidden"]
    trigger: str | None = None


class PVBank:
    """The PVs of one encoder, bound to it by its weights digest.

    Raises:
        BankError: the vectors are not finite, hold nothing or differ in length.
    """

    def __init__(self, encoder_digest: str, vectors: Sequence[PredefinedVector] = ()) -> None:
        for vector in vectors:
            if vector.values.ndim != 1 or not len(vector.values) or vector.values.shape != vectors[0].values.shape:
                raise BankError(f"expected vectors of one length, got shape {tuple(vector.values.shape)}")
            if not bool(torch.isfinite(vector.values).all()):
                raise BankError("expected finite vectors, got NaN or infinity")
        self.encoder_digest = encoder_digest
        self.vectors = tuple(vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> PredefinedVector:
        return self.vectors[index]

    def __iter__(self) -> Iterator[PredefinedVector]:
        return iter(self.vectors)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that have a vector, in the fixed order of `SITES`."""
        present = {vector.site for vector in self.vectors}
        return tuple(site for site in SITES if site in present)

    def at(self, site: Site) -> Float[Tensor, "vectors hidden"]:
        """All vectors of one site as the rows of a matrix."""
        return torch.stack([vector.values for vector in self.vectors if vector.site == site])

    def save(self, path: Path) -> None:
        """Write the bank.

        Raises:
            OutputError: the place cannot be written to.
        """
        listed = [{"site": vector.site, "trigger": vector.trigger} for vector in self.vectors]
        metadata = {"format": FORMAT, "encoder_digest": self.encoder_digest, "vectors": json.dumps(listed)}
        rows = [vector.values.float() for vector in self.vectors]
        values = torch.stack(rows) if rows else torch.empty(0, 0)
        try:
            save_file({"values": values.contiguous()}, path, metadata)
            readable(path)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"expected to write the PV bank {path}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "PVBank":
        """Read a bank written by `save`.

        Raises:
            BankError: no such file, another format, or contents that do not fit together.
        """
        try:
            with path.open("rb"):  # its error says why; that of safetensors, that there is no such file
                pass
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                values = file.get_tensor("values")
            if metadata.get("format") != FORMAT:
                raise BankError(f"expected a PV bank ({FORMAT}), {path} has format {metadata.get('format')!r}")
            if values.ndim != 2 or not values.is_floating_point():
                raise BankError(f"expected a matrix of vectors in {path}, got {values.dtype} {tuple(values.shape)}")
            listed = json.loads(metadata["vectors"])
            sound = [entry["site"] in SITES and isinstance(entry["trigger"], str | None) for entry in listed]
            if len(listed) != len(values) or not all(sound):
                raise BankError(f"expected {len(values)} vectors with a known site and a trigger or null in {path}")
            vectors = [
                PredefinedVector(entry["site"], row, entry["trigger"])
                for entry, row in zip(listed, values.float(), strict=True)
            ]
            return cls(metadata["encoder_digest"], vectors)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BankError(f"expected a PV bank in {path}: {error}") from error


def sign_match(
    outputs: Float[Tensor, "batch hidden"], pvs: Float[Tensor, "vectors hidden"]
) -> Float[Tensor, "batch vectors"]:
    """Share of dimensions in which output and PV have the same sign, for all pairs in one matrix product
    (LMSanitator, section IV-D: a match above 0.8 flags the input)."""
    return (outputs.sign() @ pvs.sign().T / pvs.shape[1] + 1) / 2
