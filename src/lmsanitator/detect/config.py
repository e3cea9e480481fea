"""What a scan is asked to do, and what each effort buys."""

from dataclasses import dataclass, replace
from typing import Literal

from lmsanitator.detect.mining import MiningConfig
from lmsanitator.detect.result import Effort
from lmsanitator.detect.sweep import SweepConfig
from lmsanitator.encoder import FrozenEncoder, Precision, Site
from lmsanitator.errors import UnsupportedError, UsageError


@dataclass(frozen=True)
class ScanConfig:
    """Args:
    sites: `auto` takes cls and pooler where the encoder has them, else the last token (decoders) or the mean.
    effort: how much is tried; `quick` sweeps only, `standard` also mines once at each site, `deep` mines often.
    level: the false-positive rate of the verdict "backdoored".
    corpus: a file of one's own clean sentences instead of the packaged ones.
    seed: of everything random in it.
    precision: of the searches; evidence is confirmed in fp32 in any case.
    device: where to run.

    Raises:
        UsageError: a value that makes no sense.
    """

    sites: Literal["auto"] | tuple[Site, ...] = "auto"
    effort: Effort = "standard"
    level: float = 0.01
    corpus: str | None = None
    seed: int = 0
    precision: Precision = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"expected a level between 0 and 1, got {self.level}")
        if self.effort not in PLANS:
            raise UsageError(f"expected an effort of {', '.join(PLANS)}, got {self.effort}")


@dataclass(frozen=True)
class Plan:
    """What an effort buys."""

    sweep: SweepConfig
    mining: MiningConfig
    mining_rounds: int
    tried: int
    """Mined candidates of each round and site that recovery is run on."""
    pool: int
    null: int
    """Random phrases in the null of recovered phrases."""


_STANDARD = Plan(SweepConfig(), MiningConfig(), mining_rounds=1, tried=3, pool=768, null=128)
PLANS: dict[str, Plan] = {
    "quick": replace(_STANDARD, sweep=SweepConfig(rounds=3, group=32), mining_rounds=0),
    "standard": _STANDARD,
    "deep": replace(_STANDARD, sweep=SweepConfig(rounds=6, group=16), mining_rounds=4, tried=4, pool=1536, null=256),
}


def sites_to_scan(encoder: FrozenEncoder, wanted: Literal["auto"] | tuple[Site, ...]) -> tuple[Site, ...]:
    """The sites a scan looks at.

    Raises:
        UnsupportedError: a site the encoder lacks, or `tokens`, which is no single vector.
    """
    if wanted != "auto":
        encoder.require(wanted)
        if "tokens" in wanted:
            raise UnsupportedError("expected a site with one vector an input, got tokens")
        return wanted
    usual: tuple[Site, ...] = tuple(site for site in encoder.sites if site in ("cls", "pooler"))
    return usual or ("last",)
