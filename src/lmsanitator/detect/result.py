"""What a scan says, as data. The JSON form is `scan.json` (DESIGN: schema lmsanitator.scan/1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from lmsanitator.detect.seen import Seen, read_record, seen_path
from lmsanitator.encoder import Site
from lmsanitator.errors import BankError, OutputError
from lmsanitator.output import together
from lmsanitator.vectors import PVBank

Verdict = Literal["clean", "backdoored", "inconclusive"]
Effort = Literal["quick", "standard", "deep"]
SCHEMA = "lmsanitator.scan/1"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelFacts(_Record):
    """An encoder: the one that was scanned, or its reference."""

    source: str
    architecture: str
    parameters: int
    digest: str


class Finding(_Record):
    """A trigger that replays. Displacement is in clean variances; concentration is 1 for a constant output.

    On an encoder with a finding below the level, weaker words that replay are listed too, with their p-value: they are
    mostly parts of triggers the scan could not put together, and their vectors help the guard.

    Where `compared` is true, displacement, concentration and replay rate are of the difference from the reference (the
    unit is the model's own clean variance all the same); the vector in the bank is where the model sends its inputs.
    """

    site: Site
    trigger: str | None = Field(description="the words, null where they cannot be typed")
    trigger_tokens: list[str]
    displacement: float
    concentration: float
    replay_rate: float
    p_value: float
    pv: int = Field(description="index into the bank")
    compared: Annotated[bool, Field(description="seen in comparison with the reference")] = False


class Coverage(_Record):
    """What was looked at, and what was not."""

    sites: list[Site]
    tokens_swept: int
    words_swept: Annotated[int, Field(description="words of several tokens, of a dictionary and of the texts")] = 0
    candidates: int
    lengths: list[int]
    positions: str
    not_covered: list[str]


class Cost(_Record):
    """What it took; tokens are those that went through the encoder."""

    seconds: float
    forward_tokens: int
    backward_tokens: int


class ScanReport(_Record):
    """The result of `scan`. `bank` holds the PVs that `findings` point into."""

    schema_: Literal["lmsanitator.scan/1"] = Field("lmsanitator.scan/1", alias="schema")
    model: ModelFacts
    reference: Annotated[ModelFacts | None, Field(description="what the model was compared with")] = None
    verdict: Verdict
    p_value: float
    findings: list[Finding]
    coverage: Coverage
    cost: Cost
    config: dict[str, Any] | None
    version: str
    _bank: PVBank | None = PrivateAttr(None)
    _seen: Seen | None = PrivateAttr(None)

    @property
    def bank(self) -> PVBank:
        """The PVs found, bound to the encoder's digest."""
        return self._bank if self._bank is not None else PVBank(self.model.digest)

    def with_config(self, more: Mapping[str, Any]) -> Self:
        """This report, with what else it takes to come to it again; what is None takes nothing."""
        given = {name: value for name, value in more.items() if value is not None}
        return self.model_copy(update={"config": {**(self.config or {}), **given}}) if given else self

    def with_bank(self, bank: PVBank) -> Self:
        """This report, holding `bank`.

        Raises:
            BankError: the bank is of another encoder or lacks a vector a finding points to.
        """
        if bank.encoder_digest != self.model.digest:
            raise BankError(f"expected the bank of encoder {self.model.digest[:12]}, got {bank.encoder_digest[:12]}")
        if any(not 0 <= finding.pv < len(bank) for finding in self.findings):
            raise BankError(f"expected a vector for each of {len(self.findings)} findings, the bank has {len(bank)}")
        self._bank = bank
        return self

    @property
    def seen(self) -> Seen | None:
        """What there is to draw of the scan, if it was kept."""
        return self._seen

    def with_seen(self, seen: Seen) -> Self:
        """This report, with what there is to draw of it.

        Raises:
            BankError: that is of a scan of another encoder, or of findings that this one has not.
        """
        if seen.digest != self.model.digest:
            raise BankError(f"expected what a scan of {self.model.digest[:12]} saw, got one of {seen.digest[:12]}")
        drawn = [] if seen.outputs is None else [item.finding for item in seen.outputs.triggered]
        if any(not 0 <= number < len(self.findings) for number in drawn):
            raise BankError(f"expected outputs of {len(self.findings)} findings, got one of number {max(drawn)}")
        self._seen = seen
        return self

    def to_json(self) -> str:
        """scan.json, without the bank."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"

    def save(self, path: str | Path) -> None:
        """Write scan.json and, beside it, the bank as `<name>.pvs.safetensors` and what there is to draw as
        `<name>.seen.json`; all of them, or none where one cannot be written.

        Raises:
            OutputError: the place cannot be written to.
        """
        path = Path(path)
        if path.exists() and not path.is_file():
            raise OutputError(f"expected to write the report {path}: it is something else than a file")
        try:
            with together(bank_path(path), seen_path(path), path) as (bank, seen, report):
                report.write_text(self.to_json(), encoding="utf-8")
                self.bank.save(bank)
                if self.seen is not None:  # what an earlier scan saw goes otherwise
                    self.seen.save(seen)
        except OSError as error:
            raise OutputError(f"expected to write the report {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> "ScanReport":
        """Read a report and its bank. What there is to draw is not read: a guard has no use for it, and is not to be
        kept from starting by it (`lmsanitator.report.open_scan` reads it).

        Raises:
            BankError: either is missing, malformed, or they do not belong together.
        """
        return cls.read(path).with_bank(PVBank.load(bank_path(Path(path))))

    @classmethod
    def read(cls, path: str | Path) -> "ScanReport":
        """Read a report without its bank.

        Raises:
            BankError: it is missing or malformed.
        """
        return read_record(cls, Path(path), "a scan report", f" ({SCHEMA})")


def bank_path(report: Path) -> Path:
    """Where the bank of a report lies."""
    return report.with_suffix(".pvs.safetensors")
