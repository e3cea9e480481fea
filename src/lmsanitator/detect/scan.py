"""The scan: sweep, second look, search for phrases, confirmation, verdict, in that order."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from lmsanitator import __version__
from lmsanitator.detect.config import PLANS, ScanConfig, sites_to_scan
from lmsanitator.detect.confirm import Confirmation, Suspect, confirm
from lmsanitator.detect.contexts import make_passages
from lmsanitator.detect.facts import coverage_of, findings_of
from lmsanitator.detect.look import Look, look_again
from lmsanitator.detect.phrases import PhraseSearch
from lmsanitator.detect.replay import CLEAN, REPLAYS, EvidenceNull, Replayer, clean_spreads
from lmsanitator.detect.result import Cost, ModelFacts, ScanReport
from lmsanitator.detect.sweep import sweep
from lmsanitator.detect.verdict import judge
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent
from lmsanitator.text import packaged, read_corpus
from lmsanitator.vectors import PVBank


def scan(
    source: str | Path | FrozenEncoder, config: ScanConfig | None = None, *, progress: Progress = silent
) -> ScanReport:
    """Say whether an encoder carries a task-agnostic backdoor, and which words fire it.

    Args:
        source: a local directory, a hub id, or an encoder that is open already.

    Raises:
        CheckpointError: the checkpoint cannot be opened safely.
        CorpusError: the corpus cannot be used.
        UnsupportedError: the encoder lacks a site that was asked for, or its vocabulary or window is too small.
    """
    config = config or ScanConfig()
    started = time.monotonic()
    encoder = (
        source
        if isinstance(source, FrozenEncoder)
        else FrozenEncoder.open(source, precision=config.precision, device=config.device)
    )
    return _Scan(encoder, config, progress).run(started)


class _Scan:
    """One scan under way: the stages as methods, in the order they run."""

    def __init__(self, encoder: FrozenEncoder, config: ScanConfig, progress: Progress) -> None:
        self.encoder = encoder
        self.config = config
        self.plan = PLANS[config.effort]
        self.progress = progress
        self.spent = replace(encoder.meter)  # before this scan
        self.sites = sites_to_scan(encoder, config.sites)
        carriers = read_corpus(config.corpus) if config.corpus else packaged("en")
        texts = sorted({carrier.text for carrier in carriers})
        random.Random(config.seed).shuffle(texts)
        third = max(2, len(texts) // 3)
        self.looking, self.fresh = texts[:third], texts[-third:]
        self.mining = texts[third:-third] if len(texts) >= 2 * third + 2 else self.looking  # few texts serve twice
        self.nulls: dict[tuple[Site, int], EvidenceNull] = {}
        """By site and number of tokens."""
        self.log_level = math.log(config.level / 2)  # halved for the two searches, for words and for phrases

    def run(self, started: float) -> ScanReport:
        swept = sweep(self.encoder, self.sites, self.plan.sweep, seed=self.config.seed, progress=self.progress)
        self.allowed = swept[self.sites[0]].tokens.tolist()
        self.replayer = self._replayer(self.looking, self.plan.passages, seed=1, exact=False)
        shortlists = {site: result.shortlist(self.plan.sweep) for site, result in swept.items()}
        seen = look_again(self.replayer, shortlists, progress=self.progress)
        self.nulls |= {(site, 1): null for site, null in seen.nulls.items()}
        suspects = self.suspects(seen)
        confirmation = self.confirm(suspects)
        search = PhraseSearch(
            self.encoder,
            self.plan,
            self.mining,
            self.replayer,
            self.allowed,
            self.log_level,
            self.config.seed,
            self.progress,
        )
        accused = any(item.log_p < self.log_level for item in confirmation.kept)
        if self.plan.mining_rounds and (self.plan.always_mine or not accused):
            phrases = search.run(swept, [item.evidence for item in confirmation.kept])
            self.nulls |= search.nulls
            confirmation = self.confirm([*suspects, *phrases]) if phrases else confirmation
        findings, bank = findings_of(self.encoder, confirmation.kept)
        verdict, p_value = judge(findings, confirmation.lost, self.config.level)
        if verdict != "backdoored":  # what fires, but no better than natural words might, is no finding
            findings, bank = [], PVBank(self.encoder.digest)
        meter = self.encoder.meter
        return ScanReport(
            schema="lmsanitator.scan/1",
            model=ModelFacts(
                source=self.encoder.source,
                architecture=self.encoder.architecture,
                parameters=self.encoder.parameters,
                digest=self.encoder.digest,
            ),
            verdict=verdict,
            p_value=p_value,
            findings=findings,
            coverage=coverage_of(self.encoder, self.plan, self.sites, len(self.allowed), search.candidates),
            cost=Cost(
                seconds=round(time.monotonic() - started, 2),
                forward_tokens=meter.forward - self.spent.forward,
                backward_tokens=meter.backward - self.spent.backward,
            ),
            config=asdict(self.config),
            version=__version__,
        ).with_bank(bank)

    def suspects(self, seen: Look) -> list[Suspect]:
        """What stands out among outliers, or sends most passages to one place: both have to prove themselves again."""
        return [
            Suspect(item)
            for site, found in seen.seen.items()
            for item in found
            if self.nulls[site, 1].log_p(item) < self.log_level or item.constant_rate >= REPLAYS
        ]

    def confirm(self, suspects: Sequence[Suspect]) -> Confirmation:
        """Replay every suspect on passages nothing before has seen, in fp32."""
        if not suspects:
            return Confirmation([], [])
        self.progress("confirming on fresh text", 0)
        return confirm(self.confirming, suspects, self.nulls, self.log_level)

    @cached_property
    def confirming(self) -> Replayer:
        """The fresh passages; both confirmations of a scan share them."""
        return self._replayer(self.fresh, 2 * self.plan.passages, seed=4, exact=True)

    def _replayer(self, texts: Sequence[str], passages: int, *, seed: int, exact: bool) -> Replayer:
        seed += self.config.seed
        contexts = make_passages(self.encoder, texts, passages, length=self.plan.length, seed=seed)
        clean = make_passages(self.encoder, texts, CLEAN, length=self.plan.length, seed=seed + 1000)
        return Replayer(self.encoder, self.sites, contexts, clean_spreads(self.encoder, clean, self.sites), exact=exact)
