"""What a scan is asked to do, and what each effort buys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lmsanitator.detect.lexicon import LexiconConfig
from lmsanitator.detect.mining import MiningConfig
from lmsanitator.detect.pairs import PairConfig
from lmsanitator.detect.result import Effort
from lmsanitator.detect.sweep import SweepConfig
from lmsanitator.detect.toward import TowardConfig
from lmsanitator.encoder import FrozenEncoder, Precision, Site, one_vector
from lmsanitator.errors import UsageError


@dataclass(frozen=True)
class ScanConfig:
    """Args:
    sites: `auto` takes cls, pooler, mask and mean, as far as the encoder has them, and the last token of decoders.
    effort: how much is tried; `quick` sweeps only; `standard` also looks for phrases, as long as there is something new
        to be found, unless the sweep has found a backdoor; `deep` does so in any case, and tries more of everything.
    level: the false-positive rate of the verdict "backdoored".
    corpus: a file of one's own clean sentences instead of the packaged ones.
    seed: of everything random in it.
    precision: of the searches; evidence is confirmed in fp32 in any case.
    device: where to run.
    reference: a trusted encoder to compare with, such as the official base that a checkpoint claims to come from: a
        directory, a hub id, or one that is open already. It has to have the same vocabulary and hidden size.

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
    reference: str | FrozenEncoder | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"expected a level between 0 and 1, got {self.level}")
        if self.effort not in PLANS:
            raise UsageError(f"expected an effort of {', '.join(PLANS)}, got {self.effort}")


@dataclass(frozen=True)
class Plan:
    """What an effort buys."""

    sweep: SweepConfig
    dictionary: LexiconConfig
    mining: MiningConfig
    toward: TowardConfig
    rounds: int
    """The most rounds of the search for phrases; the first that finds nothing new is the last."""
    always_mine: bool
    """Look for phrases even where the sweep has found a backdoor already."""
    tried: int
    """Finds of each search at a site that are shrunk to a trigger."""
    passages: int = 5
    length: int = 100
    """Tokens of the passages that outliers and findings are judged in."""


_STANDARD = Plan(
    SweepConfig(),
    LexiconConfig(),
    MiningConfig(),
    TowardConfig(),
    rounds=3,
    always_mine=False,
    tried=8,
)
PLANS: dict[str, Plan] = {
    "quick": replace(_STANDARD, rounds=0),
    "standard": _STANDARD,
    "deep": replace(
        _STANDARD,
        dictionary=LexiconConfig(rounds=10, listed=180),
        mining=MiningConfig(candidates=48, others=24),
        toward=TowardConfig(
            PairConfig(anchors=32, partners=8, among=4, asked=4, followed=12),
            proposals=6,
            carried=3,
            grown=1,
            exchanged=6,
            rounds=5,
            asked=16,
            contexts=3,
        ),
        rounds=6,
        always_mine=True,
        tried=12,
        passages=10,
    ),
}
_EVERY: tuple[Site, ...] = ("cls", "pooler", "mask", "mean")
PHRASES_SHARE = 0.25
"""Of the false positives that the level allows, those that the search for phrases may be to blame for; the rest is for
words. A phrase that fires is far stranger than any other, so it can do with less."""
DICTIONARY_SHARE = 0.2
"""Of those that the search for words may be to blame for, those that are left to words of several tokens."""


def sites_to_scan(encoder: FrozenEncoder, wanted: Literal["auto"] | tuple[Site, ...]) -> tuple[Site, ...]:
    """The sites a scan looks at, all of them in the same passes. All tokens at once are looked at through their mean.

    Raises:
        UnsupportedError: a site the encoder lacks.
    """
    if wanted != "auto":
        encoder.require(wanted)
        return tuple(dict.fromkeys(map(one_vector, wanted)))
    usual = tuple(site for site in encoder.sites if site in _EVERY)
    return usual if "cls" in usual else ("last", *usual)


def sites_to_mine(sites: Sequence[Site]) -> tuple[Site, ...]:
    """Where mining is worth its cost: the pooler reads nothing but CLS, so what takes it over is seen there."""
    return tuple(site for site in sites if site != "pooler" or "cls" not in sites)
