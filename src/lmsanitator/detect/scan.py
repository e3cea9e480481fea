"""The scan: words, words in comparison with a reference, phrases, confirmation, verdict, in that order."""

import hashlib
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lmsanitator import __version__
from lmsanitator.detect.config import PHRASES_SHARE, PLANS, ScanConfig, sites_to_scan
from lmsanitator.detect.confirm import Confirmation, Confirmed, together
from lmsanitator.detect.facts import bank_of, coverage_of, facts_of, findings_of
from lmsanitator.detect.journal import Journal
from lmsanitator.detect.naming import Naming
from lmsanitator.detect.phrases import PhraseSearch
from lmsanitator.detect.reference import Comparison
from lmsanitator.detect.result import Cost, Coverage, ScanReport
from lmsanitator.detect.seen import Seen
from lmsanitator.detect.sights import outputs_of, vocabulary_of
from lmsanitator.detect.variants import Variants
from lmsanitator.detect.verdict import judge
from lmsanitator.detect.words import WordSearch
from lmsanitator.encoder import Difference, FrozenEncoder, check_comparable, one_vector
from lmsanitator.encoder.frozen import TokenMeter
from lmsanitator.errors import CorpusError
from lmsanitator.progress import Progress, silent
from lmsanitator.text import packaged, read_corpus, terms
from lmsanitator.vectors import PVBank

_FEWEST = 4
"""Sentences that a scan needs, two to look in and two to confirm in."""


def scan(
    source: str | Path | FrozenEncoder,
    config: ScanConfig | None = None,
    *,
    progress: Progress = silent,
    journals: Path | None = None,
    resume: bool = False,
) -> ScanReport:
    """Say whether an encoder carries a task-agnostic backdoor, and which words fire it.

    Args:
        source: a local directory, a hub id, or an encoder that is open already.
        journals: a folder for what scans have found so far, each in a folder of its own that goes when it is done.
        resume: go on from where a scan of the same encoder with the same settings was cut off, if there was one. The
            report is the same but for its cost, which counts what was spent before as far as it was of use.

    Raises:
        CheckpointError: the checkpoint, or the reference, cannot be opened safely.
        CorpusError: the corpus cannot be used.
        UnsupportedError: the encoder or the reference lacks a site that was asked for, or the vocabulary or window is
            too small.
        UsageError: the reference has another vocabulary or hidden size.
        OutputError: there is to be gone on, and `journals` cannot be written to.
    """
    config = config or ScanConfig()
    started = time.monotonic()
    encoder = _opened(source, config)
    reference = None if config.reference is None else _opened(config.reference, config)
    journal = Journal()
    if journals is not None:
        key = _key(encoder, reference, config)
        journal = Journal.open(journals, key, _meters(encoder, reference), resume=resume)
    report = _Scan(encoder, reference, config, progress, journal).run(started)
    journal.close()
    return report


def _key(encoder: FrozenEncoder, reference: FrozenEncoder | None, config: ScanConfig) -> str:
    """Tells scans apart that would find different things."""
    settings = asdict(replace(config, reference=None))
    parts = [__version__, encoder.digest, "" if reference is None else reference.digest, json.dumps(settings)]
    tokenizer = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer |= {"truncation": None, "padding": None}  # these are of whatever call was the last
    parts += [encoder.precision, json.dumps(tokenizer)]
    parts += [carrier.text for carrier in read_corpus(config.corpus)] if config.corpus else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _opened(source: str | Path | FrozenEncoder, config: ScanConfig) -> FrozenEncoder:
    if isinstance(source, FrozenEncoder):
        return source
    return FrozenEncoder.open(source, precision=config.precision, device=config.device)


def _meters(encoder: FrozenEncoder, reference: FrozenEncoder | None) -> list[TokenMeter]:
    return [encoder.meter, *([] if reference is None else [reference.meter])]


class _Scan:
    """One scan under way: the stages in the order they run."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        reference: FrozenEncoder | None,
        config: ScanConfig,
        progress: Progress,
        journal: Journal | None = None,
    ) -> None:
        self.encoder = encoder
        self.reference = reference
        self.config = config
        self.plan = PLANS[config.effort]
        self.progress = progress
        self.journal = journal or Journal()
        self.meters = _meters(encoder, reference)
        self.spent = [replace(meter) for meter in self.meters]  # before this scan
        self.sites = sites_to_scan(encoder, config.sites)
        difference = None
        if reference is not None:
            check_comparable(encoder, reference)
            if reference.digest != encoder.digest:
                difference = Difference(encoder, reference)
        self.log_level = math.log(config.level)
        carriers = read_corpus(config.corpus) if config.corpus else packaged("en")
        texts = sorted({carrier.text for carrier in carriers})
        random.Random(config.seed).shuffle(texts)
        if len(texts) < _FEWEST:
            raise CorpusError(
                f"expected {_FEWEST} different sentences or more, since finds are confirmed in others than they were "
                f"made in, got {len(texts)}"
            )
        third = max(2, len(texts) // 3)
        self.mining = texts[third:-third] if len(texts) >= 2 * third + 2 else texts[:third]  # few texts serve twice
        searches = 1 if difference is None else 2  # for words: alone, and in comparison
        self.words = WordSearch(
            encoder,
            self.sites,
            self.plan,
            texts[:third],
            texts[-third:],
            self.log_level,
            (1 - PHRASES_SHARE) / searches,
            config.seed,
            progress,
            self.journal,
        )
        self.comparison = None if difference is None else Comparison.of(self.words, difference, config.sites)

    @cached_property
    def phrases(self) -> PhraseSearch:
        """The search for phrases, of which nothing is run yet."""
        return PhraseSearch(
            self.encoder,
            self.plan,
            self.mining,
            self.words.passages,
            self.words.tokens,
            self.log_level,
            PHRASES_SHARE,
            self.config.seed,
            self.progress,
            self.journal,
        )

    def run(self, started: float) -> ScanReport:
        confirmation = self.words.confirm()
        comparing = self.comparison is not None and self._goes_on(confirmation.kept)
        compared = self.comparison.confirm() if self.comparison is not None and comparing else Confirmation([], [])
        if self.plan.rounds and self._goes_on([*confirmation.kept, *compared.kept]):
            known = [item.evidence for item in (*confirmation.kept, *compared.kept) if self._holds(item)]
            phrases = self.phrases.run(known)
            confirmation = self.words.confirm(phrases) if phrases else confirmation
        kept = confirmation.kept
        if any(map(self._holds, kept)):
            kept = self._named(kept)
        found = together(kept, compared.kept)
        findings = findings_of(self.encoder, found)
        lost = [*confirmation.lost, *compared.lost]
        verdict, p_value = judge(findings, lost, self.config.level)
        if verdict != "backdoored":  # what fires, but no better than natural words might, is no finding
            findings, found = [], []
        bank = bank_of(found, self.words.vectors) if found else PVBank(self.encoder.digest)
        seen = self._seen(found)
        report = ScanReport(
            schema="lmsanitator.scan/1",
            model=facts_of(self.encoder),
            reference=None if self.reference is None else facts_of(self.reference),
            verdict=verdict,
            p_value=p_value,
            findings=findings,
            coverage=self._coverage(comparing),
            cost=self._cost(started),
            config=self._config_as_run(),
            version=__version__,
        )
        return report.with_bank(bank).with_seen(seen)

    def _named(self, kept: Sequence[Confirmed]) -> list[Confirmed]:
        """The same triggers, in the words that were meant."""
        words = self.words
        naming = Naming(
            words.confirming, words.judging, self.phrases.ways, Variants(self.encoder, words.written, terms())
        )
        return naming.name(kept, self.progress)

    def _coverage(self, comparing: bool) -> Coverage:
        swept, tried = (len(self.words.tokens), self.words.judged), self.phrases.candidates
        return coverage_of(self.encoder, self.plan, self.sites, *swept, tried, self._not_compared(comparing))

    def _cost(self, started: float) -> Cost:
        """Since the scan began, whatever the encoders were used for before."""
        return Cost(
            seconds=round(time.monotonic() - started, 2),
            forward_tokens=sum(now.forward - then.forward for now, then in zip(self.meters, self.spent, strict=True)),
            backward_tokens=sum(
                now.backward - then.backward for now, then in zip(self.meters, self.spent, strict=True)
            ),
        )

    def _config_as_run(self) -> dict[str, Any]:
        """With what `auto` came to, and names for what is open."""
        reference = self.reference.source if self.reference else None
        return asdict(replace(self.config, precision=self.encoder.precision, reference=reference))

    def _seen(self, found: Sequence[Confirmed]) -> Seen:
        """What there is to draw, at the site of the first finding."""
        site = one_vector(found[0].evidence.site) if found else self.sites[0]
        return Seen(
            digest=self.encoder.digest,
            vocabulary=vocabulary_of(self.encoder, site, self.words.swept[site]),
            searches=self.phrases.searched,
            outputs=outputs_of(found, self.words.confirming),
        )

    def _goes_on(self, found: Sequence[Confirmed]) -> bool:
        """Whether the next search has something to say: what is there already is enough for a verdict."""
        return self.plan.always_mine or not any(map(self._holds, found))

    def _holds(self, item: Confirmed) -> bool:
        """Whether it is enough for a verdict (`verdict.holds`)."""
        return item.evidence.replays and item.log_p < self.log_level

    def _not_compared(self, comparing: bool) -> list[str]:
        """What a comparison would have seen, or did not see if there was one."""
        constant = "only add a constant to the output, no larger than the effect of an ordinary word"
        if self.reference is None:
            return [f"triggers that {constant} (a reference shows them)"]
        if self.comparison is None:
            return ["differences from the reference: there are none, its weights are the same"]
        if not comparing:
            return ["differences from the reference (the model alone had shown enough)"]
        missing = [site for site in self.sites if site not in self.comparison.sites]
        return [
            f"triggers of several words that {constant}",
            *(["differences from the reference at the sites " + ", ".join(missing)] if missing else []),
        ]
