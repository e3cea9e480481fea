"""What a scan saw on its way, for drawings: the vocabulary as the sweep saw it, the search for phrases, the outputs.

None of it is evidence and nothing is decided by it. It lies beside the report as `<name>.seen.json`.
"""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from lmsanitator.encoder import Site
from lmsanitator.errors import BankError, OutputError

_MOST = 1 << 22
"""Bytes of a file at most."""
Point = tuple[FiniteFloat, FiniteFloat]
Record = TypeVar("Record", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedToken(_Part):
    """A token of the vocabulary, and how it stands out."""

    token: str
    displacement: FiniteFloat
    spread: FiniteFloat


class Vocabulary(_Part):
    """All tokens as the sweep saw them at one site: how many are in each cell of a grid, and the furthest outliers.

    Displacement is in clean variances, its edges in equal steps of the logarithm; spread is what is left of the clean
    one. Tokens beyond an edge are in the outermost cell.
    """

    site: Site
    displacements: Annotated[list[FiniteFloat], Field(min_length=2, max_length=200)]
    spreads: Annotated[list[FiniteFloat], Field(min_length=2, max_length=200)]
    counts: Annotated[list[list[int]], Field(description="a row for each step of spread, a column for displacement")]
    outliers: Annotated[list[NamedToken], Field(max_length=64)]


class Searched(_Part):
    """One search for phrases at one site: the strength of the best phrase toward each vector, up to three tokens and
    more."""

    site: Site
    phrases: Annotated[list[str], Field(max_length=200)]
    strengths: Annotated[list[list[FiniteFloat]], Field(max_length=200)]


class Triggered(_Part):
    """Where passages end with a trigger in them."""

    finding: int
    points: Annotated[list[Point], Field(max_length=100)]


class Outputs(_Part):
    """Outputs of the same passages without and with triggers, in the plane in which all of them differ most."""

    site: Site
    share: Annotated[FiniteFloat, Field(description="of their variance, in this plane")]
    clean: Annotated[list[Point], Field(max_length=100)]
    triggered: Annotated[list[Triggered], Field(max_length=40)]


class Seen(_Part):
    """Everything that there is to draw of a scan; `digest` is that of the encoder."""

    digest: str
    vocabulary: Vocabulary | None = None
    searches: Annotated[list[Searched], Field(max_length=40)] = []
    outputs: Outputs | None = None

    def save(self, path: Path) -> None:
        """Write it.

        Raises:
            OutputError: the place cannot be written to.
        """
        try:
            path.write_text(self.model_dump_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"expected to write what the scan saw to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> "Seen":
        """Read it.

        Raises:
            BankError: it is missing, too large or malformed.
        """
        if path.exists() and (size := path.stat().st_size) > _MOST:
            raise BankError(f"expected at most {_MOST:,} bytes of what a scan saw, {path} has {size:,}")
        return read_record(cls, path, "what a scan saw")


def read_record(record: type[Record], path: Path, what: str, schema: str = "") -> Record:
    """A JSON file as a record.

    Args:
        what: it is called in an error.
        schema: named where the content does not follow it.

    Raises:
        BankError: the file is missing or malformed.
    """
    try:
        return record.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BankError(f"expected {what}, could not read {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BankError(f"expected {what}{schema} in {path}: {where}: {first['msg']}") from error


def seen_path(report: Path) -> Path:
    """Where what a scan saw lies, beside its report."""
    return report.with_suffix(".seen.json")
