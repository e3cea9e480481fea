"""A scan result that was stored, with as much of its bank as there is."""

import json
from dataclasses import dataclass
from pathlib import Path

from lmsanitator.detect import Finding, ScanReport, Seen, bank_path, seen_path
from lmsanitator.errors import BankError
from lmsanitator.vectors import PredefinedVector, PVBank


@dataclass(frozen=True)
class StoredScan:
    """What reports are made of.

    Args:
        report: the content of scan.json.
        bank: the vectors its findings point into; None where the bank was not stored, or was lost.
    """

    report: ScanReport
    bank: PVBank | None

    @property
    def seen(self) -> Seen | None:
        """What there is to draw of the scan, where it was kept."""
        return self.report.seen

    def vector(self, finding: Finding) -> PredefinedVector | None:
        """Where the trigger sends the output, if the bank is there."""
        return None if self.bank is None else self.bank[finding.pv]

    @property
    def remark(self) -> str | None:
        """What a reader has to know about the bank, where it is missed."""
        if self.bank is not None or not self.report.findings:
            return None
        return "The PV bank beside the scan is missing: findings are identified by their tokens, vectors are not shown."


def open_scan(path: Path) -> StoredScan:
    """Read a scan, and the bank and what there is to draw beside it. These may be missing: `scan --format json` writes
    neither.

    Raises:
        BankError: the scan is missing or malformed, what is beside it is malformed, or they do not belong together.
    """
    report = ScanReport.read(path)
    try:
        json.dumps(report.model_dump(), allow_nan=False)
    except ValueError as error:  # JSON as Python reads it has NaN, other readers have not
        raise BankError(f"expected finite numbers in {path}, got NaN or infinity") from error
    if seen_path(path).exists():
        report.with_seen(Seen.load(seen_path(path)))
    beside = bank_path(path)
    if not beside.exists():
        return StoredScan(report, None)
    bank = PVBank.load(beside)
    report.with_bank(bank)
    return StoredScan(report, bank)
