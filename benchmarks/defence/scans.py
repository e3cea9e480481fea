"""Scans of models of the zoo, each made once and kept in the zoo's folder."""

from pathlib import Path

from benchmarks import digest
from benchmarks.detection import scanner
from benchmarks.zoo.build import replacing
from lmsanitator.detect import ScanConfig, ScanReport, scan
from lmsanitator.detect.result import bank_path
from lmsanitator.encoder import FrozenEncoder


def scanned(encoder: FrozenEncoder, name: str, zoo: Path) -> ScanReport:
    """What a scan at standard effort says of a model of the zoo, knowing nothing of it.

    It is kept for this very encoder and this very scanner.
    """
    path = scan_path(encoder, name, zoo)
    if path.exists():
        return ScanReport.load(path)
    report = scan(encoder, ScanConfig())
    with replacing(path) as part, replacing(bank_path(path)) as bank:  # the bank is in its place first
        report.bank.save(bank)
        part.write_text(report.to_json(), encoding="utf-8")
    return report


def scan_path(encoder: FrozenEncoder, name: str, zoo: Path) -> Path:
    """Where the scan of a model is kept; its name says by which scanner, and of which weights."""
    return zoo / "scans" / f"{name}-{digest.of(encoder.digest, scanner())}.json"
