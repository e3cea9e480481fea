"""Find task-agnostic backdoors: vocabulary sweep, PV mining, trigger recovery, verdict."""

from lmsanitator.detect.config import ScanConfig
from lmsanitator.detect.mining import Candidate, MiningConfig, mine
from lmsanitator.detect.result import Effort, Finding, ScanReport, Verdict, bank_path
from lmsanitator.detect.scan import scan
from lmsanitator.detect.seen import Seen, seen_path
from lmsanitator.detect.sweep import SweepConfig, SweepResult, sweep
from lmsanitator.detect.verdict import judge

__all__ = [
    "Candidate",
    "Effort",
    "Finding",
    "MiningConfig",
    "ScanConfig",
    "ScanReport",
    "Seen",
    "SweepConfig",
    "SweepResult",
    "Verdict",
    "bank_path",
    "judge",
    "mine",
    "scan",
    "seen_path",
    "sweep",
]
