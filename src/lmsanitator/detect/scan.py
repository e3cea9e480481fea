"""The scan: sweep, second look, mining, recovery, confirmation, verdict, in that order."""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import torch

from lmsanitator import __version__
from lmsanitator.detect.config import PLANS, ScanConfig, sites_to_mine, sites_to_scan
from lmsanitator.detect.confirm import Confirmation, Confirmed, Suspect, confirm
from lmsanitator.detect.contexts import Context, make_contexts, make_passages
from lmsanitator.detect.growth import grow
from lmsanitator.detect.look import Look, look_again
from lmsanitator.detect.mining import Candidate, mine
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.recovery import Phrases, prove, recover_pairs
from lmsanitator.detect.replay import REPLAYS, Evidence, EvidenceNull, Replayer, phrase_null
from lmsanitator.detect.result import Cost, Coverage, Finding, ModelFacts, ScanReport
from lmsanitator.detect.sweep import SweepResult, sweep
from lmsanitator.detect.verdict import judge
from lmsanitator.encoder import FrozenEncoder, Site, one_vector
from lmsanitator.progress import Progress, silent
from lmsanitator.text import packaged, read_corpus
from lmsanitator.vectors import PredefinedVector, PVBank

_CLEAN = 160
"""Clean texts that the spread of clean outputs is measured on."""


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
        self.log_level = math.log(config.level / 2)  # halved for the two searches, sweep and mining

    def run(self, started: float) -> ScanReport:
        swept = sweep(self.encoder, self.sites, self.plan.sweep, seed=self.config.seed, progress=self.progress)
        self.allowed = swept[self.sites[0]].tokens.tolist()
        self.replayer = self._replayer(self.looking, self.plan.passages, seed=1, exact=False)
        shortlists = {site: result.shortlist(self.plan.sweep) for site, result in swept.items()}
        seen = look_again(self.replayer, shortlists, progress=self.progress)
        self.nulls |= {(site, 1): null for site, null in seen.nulls.items()}
        suspects = self.suspects(seen)
        confirmation = self.confirm(suspects)
        candidates = 0
        accused = any(item.log_p < self.log_level for item in confirmation.kept)
        if self.plan.mining_rounds and (self.plan.always_mine or not accused):
            phrases, candidates = self.search_phrases(swept, [item.evidence for item in confirmation.kept])
            if phrases:
                confirmation = self.confirm([*suspects, *phrases])
        findings, bank = self.findings(confirmation.kept)
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
            coverage=self.coverage(candidates),
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

    def search_phrases(self, swept: Mapping[Site, SweepResult], known: Sequence[Evidence]) -> tuple[list[Suspect], int]:
        """Grow phrases from the sweep's outliers; mine where that leads to nothing, and as long as there is something
        to be found.

        Returns:
            Phrases that send text to one place, and the number of candidates mined.
        """
        found = self.grow(swept)
        candidates = 0
        for number in range(self.plan.mining_rounds):
            if self._enough(found) and not self.plan.always_mine:
                break
            mined = self.mine([*known, *(item.evidence for item in found)], number)
            candidates += sum(map(len, mined.values()))
            new = self.recover(mined, number)
            found += new
            if not new:
                break
        return found, candidates

    def _enough(self, found: Sequence[Suspect]) -> bool:
        return any(item.log_p is not None and item.log_p < self.log_level for item in found)

    def grow(self, swept: Mapping[Site, SweepResult]) -> list[Suspect]:
        """Phrases grown from the tokens that the sweep puts first, at each site."""
        shape = self.plan.growth
        seed = self.config.seed + 5
        contexts = make_contexts(self.encoder, self.mining, shape.contexts, longest=shape.context_tokens, seed=seed)
        sites = sites_to_mine(self.sites)
        phrases: dict[Site, Phrases] = {}
        for number, site in enumerate(sites):
            families = shape.others if number else shape.families
            anchors = swept[site].foremost(families * shape.anchors)
            random.Random(seed).shuffle(anchors)
            grown = grow(
                self.encoder,
                site,
                [anchors[start::families] for start in range(families)],
                contexts,
                self.mining_spread[site],
                shape,
                self.allowed,
                progress=self.progress,
            )
            phrases[site] = self._prove(site, grown, 0)
        return self._suspects_of(phrases)

    def mine(self, known: Sequence[Evidence], number: int) -> dict[Site, list[Candidate]]:
        """Mine at all sites, away from the PVs that are known already."""
        shape = self.plan.mining
        seed = self.config.seed + 101 * number + 2
        contexts = make_contexts(self.encoder, self.mining, shape.contexts, longest=shape.context_tokens, seed=seed)
        sites = sites_to_mine(self.sites)
        pvs = {site: [item.pv for item in known if one_vector(item.site) == site] for site in sites}
        return mine(
            self.encoder,
            contexts,
            {site: self.mining_spread[site] for site in sites},
            shape,
            known={site: torch.stack(found) for site, found in pvs.items() if found},
            seed=seed,
            progress=self.progress,
        )

    def recover(self, mined: Mapping[Site, Sequence[Candidate]], number: int) -> list[Suspect]:
        """Words for the mined candidates: their own where they fire, others where they do not."""
        phrases: dict[Site, Phrases] = {}
        for site, candidates in mined.items():
            self.progress(f"recovering words at {site}", 0)
            phrases[site] = self._prove(site, [candidate.tokens for candidate in candidates], number)
            if not phrases[site]:
                phrases[site] = recover_pairs(
                    self.encoder,
                    self._short(number),
                    candidates[0],
                    set(self.allowed),
                    pool=self.plan.pool,
                    seed=self.config.seed,
                )
        return self._suspects_of(phrases)

    def _prove(self, site: Site, sequences: Sequence[tuple[int, ...]], number: int) -> Phrases:
        allowed = set(self.allowed)
        kept = [tuple(token for token in tokens if token in allowed) for tokens in sequences]
        return prove(self.replayer, self._short(number), site, kept, allowed, tried=self.plan.tried)

    def _short(self, number: int) -> Replayer:
        contexts = make_contexts(self.encoder, self.mining, 8, longest=24, seed=self.config.seed + 101 * number + 3)
        return Replayer(self.encoder, self.sites, contexts, self.mining_spread, exact=False)

    def _suspects_of(self, phrases: Mapping[Site, Phrases]) -> list[Suspect]:
        """The phrases that send passages to one place, with p-values corrected for the sites."""
        found: list[Suspect] = []
        for site, at_site in phrases.items():
            for item, log_p in zip(self.replayer.measure(list(at_site))[site], at_site.values(), strict=True):
                if item.constant_rate >= REPLAYS:
                    found.append(Suspect(item, None if log_p is None else min(0.0, log_p + math.log(len(phrases)))))
        self._measure_nulls(found)
        return found

    def _measure_nulls(self, found: Sequence[Suspect]) -> None:
        """Random phrases of the same length, for phrases that nothing else is known of."""
        for key in {(item.evidence.site, len(item.evidence.tokens)) for item in found if item.log_p is None}:
            if key not in self.nulls:
                self.progress("measuring random phrases", 0)
                self.nulls[key] = phrase_null(
                    self.replayer, *key, self.allowed, count=self.plan.null, seed=self.config.seed
                )

    def confirm(self, suspects: Sequence[Suspect]) -> Confirmation:
        """Replay every suspect on passages nothing before has seen, in fp32."""
        self.progress("confirming on fresh text", 0)
        replayer = self._replayer(self.fresh, 2 * self.plan.passages, seed=4, exact=True)
        return confirm(replayer, suspects, self.nulls, self.log_level)

    def _replayer(self, texts: Sequence[str], passages: int, *, seed: int, exact: bool) -> Replayer:
        seed += self.config.seed
        contexts = make_passages(self.encoder, texts, passages, length=self.plan.length, seed=seed)
        clean = make_passages(self.encoder, texts, _CLEAN, length=self.plan.length, seed=seed + 1000)
        return Replayer(self.encoder, self.sites, contexts, self._spread(clean), exact=exact)

    @cached_property
    def mining_spread(self) -> dict[Site, CleanSpread]:
        """The clean spread in the short contexts that are mined and recovered in."""
        return self._spread(make_contexts(self.encoder, self.mining, _CLEAN, longest=24, seed=self.config.seed))

    def _spread(self, contexts: Sequence[Context]) -> dict[Site, CleanSpread]:
        outputs = self.encoder.outputs_of_ids([context.clean for context in contexts], self.sites)
        return {site: CleanSpread.of(outputs[site]) for site in self.sites}

    def findings(self, confirmed: Sequence[Confirmed]) -> tuple[list[Finding], PVBank]:
        """What is reported of each trigger, and its vector."""
        findings: list[Finding] = []
        vectors: list[PredefinedVector] = []
        for item in confirmed:
            evidence = item.evidence
            trigger = self._typed(evidence.tokens)
            names = self.encoder.tokenizer.convert_ids_to_tokens(list(evidence.tokens))
            findings.append(
                Finding(
                    site=evidence.site,
                    trigger=trigger,
                    trigger_tokens=list(map(str, names)),
                    displacement=round(evidence.displacement, 4),
                    concentration=round(1 - evidence.spread, 4),
                    replay_rate=round(evidence.replay_rate, 4),
                    p_value=math.exp(max(item.log_p, -700.0)),
                    pv=len(vectors),
                )
            )
            vectors.append(PredefinedVector(evidence.site, evidence.pv, trigger))
        return findings, PVBank(self.encoder.digest, vectors)

    def _typed(self, tokens: Sequence[int]) -> str | None:
        """The tokens as words a person can type, None where typing them gives other tokens."""
        text = str(self.encoder.tokenizer.decode(list(tokens))).strip()
        again = self.encoder.tokenizer(f"a {text} a", add_special_tokens=False).input_ids[1:-1]
        return text if list(again) == list(tokens) else None

    def coverage(self, candidates: int) -> Coverage:
        """What this scan looked at, and what it cannot see."""
        missed = ["triggers that must stand at a fixed place in the text"]
        if not candidates:
            why = "no mining at this effort" if not self.plan.mining_rounds else "no mining, the sweep had found enough"
            missed.append(f"triggers of several words that fire only together ({why})")
        looked_at: list[Site] = [*self.sites, *(["tokens"] if "mean" in self.sites else [])]  # type: ignore[list-item]
        unseen = [site for site in self.encoder.sites if site not in looked_at]
        return Coverage(
            sites=looked_at,
            tokens_swept=len(self.allowed),
            candidates=candidates,
            lengths=[1, *(self.plan.mining.lengths if candidates else [])],
            positions=f"random word boundaries of passages of {self.plan.length} tokens",
            not_covered=[*missed, *(["the sites " + ", ".join(unseen)] if unseen else [])],
        )
