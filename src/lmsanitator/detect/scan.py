"""The scan: sweep, second look, mining, recovery, confirmation, verdict, in that order."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from lmsanitator import __version__
from lmsanitator.detect.config import PLANS, ScanConfig, sites_to_scan
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.mining import Candidate, mine
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.recovery import join, polish, recover_words, word_pool
from lmsanitator.detect.replay import REPLAYS, Evidence, Replayer, phrase_log_p, phrase_null, without_echoes
from lmsanitator.detect.result import Cost, Coverage, Finding, ModelFacts, ScanReport
from lmsanitator.detect.sweep import SweepResult, sweep
from lmsanitator.detect.verdict import judge
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.progress import Progress, silent
from lmsanitator.text import packaged, read_corpus
from lmsanitator.vectors import PredefinedVector, PVBank


def scan(
    source: str | Path | FrozenEncoder, config: ScanConfig | None = None, *, progress: Progress = silent
) -> ScanReport:
    """Say whether an encoder carries a task-agnostic backdoor, and which words fire it.

    Args:
        source: a local directory, a hub id, or an encoder that is open already.

    Raises:
        CheckpointError: the checkpoint cannot be opened safely.
        CorpusError: the corpus cannot be used.
        UnsupportedError: the encoder lacks a site that was asked for.
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
        self.clean = self._clean_spread(texts[:-third] if len(texts) >= 2 * third else texts)
        self.allowed: list[int] = []
        self.unexplained: list[float] = []
        self.level = math.log(config.level / 2)  # halved for the two searches, sweep and mining

    def run(self, started: float) -> ScanReport:
        swept = sweep(self.encoder, self.sites, self.plan.sweep, seed=self.config.seed, progress=self.progress)
        self.allowed = swept[self.sites[0]].tokens.tolist()
        suspects = self.look_again(swept)
        candidates = 0
        for number in range(self.plan.mining_rounds):
            mined = self.mine(suspects, number)
            candidates += len(mined)
            suspects += self.recover(mined)
        findings, bank = self.confirm(suspects)
        verdict, p_value = judge(findings, self.unexplained, self.config.level)
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

    def _clean_spread(self, texts: Sequence[str]) -> dict[Site, CleanSpread]:
        contexts = make_contexts(self.encoder, texts, 200, longest=24, seed=self.config.seed)
        outputs = self.encoder.outputs_of_ids([context.clean for context in contexts], self.sites)
        return {site: CleanSpread.of(outputs[site]) for site in self.sites}

    def look_again(self, swept: dict[Site, SweepResult]) -> list[tuple[Evidence, float]]:
        """Put the sweep's outliers into natural text; those that replay are suspects, with their log p."""
        self.progress("looking again at outliers", 0)
        contexts = make_contexts(self.encoder, self.looking, 12, longest=24, seed=self.config.seed + 1)
        replayer = Replayer(self.encoder, self.sites, contexts, self.clean, exact=False)
        suspects: list[tuple[Evidence, float]] = []
        for site in self.sites:
            log_p = dict(zip(swept[site].tokens.tolist(), swept[site].log_p.tolist(), strict=True))
            short = swept[site].shortlist(self.plan.sweep.shortlist)
            outliers = [token for token in short if log_p[token] < self.level]
            seen = replayer.measure([(token,) for token in outliers])[site]
            replaying = [item for item in seen if item.replay_rate >= REPLAYS]
            kept = without_echoes(replaying, self.clean[site], len(contexts))
            suspects += [(item, log_p[item.tokens[0]]) for item in kept]
            silent_ones = [item.tokens[0] for item in seen if item.replay_rate < REPLAYS]
            joined = join(replayer, site, silent_ones[:12]) if silent_ones else None
            if joined is not None:
                suspects.append((joined, min(log_p[token] for token in joined.tokens)))
            self.unexplained += [log_p[token] for token in silent_ones] if not kept and joined is None else []
        return suspects

    def mine(self, suspects: Sequence[tuple[Evidence, float]], number: int) -> list[Candidate]:
        """Mine at every site, away from the PVs that are known already; the strongest of each site come back."""
        mined: list[Candidate] = []
        for site in self.sites:
            seed = self.config.seed + 101 * number + 2
            known = [evidence.pv for evidence, _ in suspects if evidence.site == site]
            shape = self.plan.mining
            contexts = make_contexts(self.encoder, self.mining, shape.contexts, longest=shape.context_tokens, seed=seed)
            mined += mine(
                self.encoder,
                site,
                contexts,
                self.clean[site],
                shape,
                known=torch.stack(known) if known else None,
                seed=seed,
                progress=self.progress,
            )
        return mined

    def recover(self, mined: Sequence[Candidate]) -> list[tuple[Evidence, float]]:
        """Words for the strongest mined candidates, judged against random phrases of the same length."""
        matrix = self.encoder.embedding_matrix()
        contexts = make_contexts(self.encoder, self.looking, 8, longest=24, seed=self.config.seed + 3)
        replayer = Replayer(self.encoder, self.sites, contexts, self.clean, exact=False)
        allowed = set(self.allowed)
        found: list[tuple[Evidence, float]] = []
        for site in self.sites:
            strongest = [candidate for candidate in mined if candidate.site == site][: self.plan.tried]
            phrases: set[tuple[int, ...]] = set()
            for number, candidate in enumerate(strongest):
                self.progress(f"recovering words at {site}", number / len(strongest))
                pool = word_pool(candidate, matrix, allowed, self.plan.pool)
                words = recover_words(self.encoder, candidate, self.clean[site], pool, seed=self.config.seed)
                if words:
                    phrases.add(tuple(polish(replayer, site, words, matrix, allowed)))
            judged = self._judge_phrases(replayer, site, sorted(phrases))
            found += judged
            if not judged and strongest:
                self.unexplained.append(min(0.0, strongest[0].log_p + math.log(len(self.sites))))
        return found

    def _judge_phrases(
        self, replayer: Replayer, site: Site, phrases: Sequence[tuple[int, ...]]
    ) -> list[tuple[Evidence, float]]:
        nulls = {
            length: phrase_null(replayer, site, length, self.allowed, count=self.plan.null, seed=self.config.seed)
            for length in sorted({len(phrase) for phrase in phrases})
        }
        measured = [item for item in replayer.measure(phrases)[site] if item.replay_rate >= REPLAYS]
        kept = without_echoes(measured, self.clean[site], len(replayer.contexts))
        return [
            (item, phrase_log_p(item, nulls[len(item.tokens)], len(self.allowed), len(self.sites))) for item in kept
        ]

    def confirm(self, suspects: Sequence[tuple[Evidence, float]]) -> tuple[list[Finding], PVBank]:
        """Replay every suspect on carriers nothing before has seen, in fp32; one finding a trigger."""
        self.progress("confirming on fresh text", 0)
        contexts = make_contexts(self.encoder, self.fresh, 24, longest=48, seed=self.config.seed + 4)
        replayer = Replayer(self.encoder, self.sites, contexts, self.clean, exact=True)
        best: dict[frozenset[int], tuple[Evidence, float]] = {}
        for site in self.sites:  # in the order of the encoder: a pooler's finding is only kept where cls has none
            at_site = [(evidence, log_p) for evidence, log_p in suspects if evidence.site == site]
            measured = replayer.measure([evidence.tokens for evidence, _ in at_site])[site]
            p_of: dict[tuple[int, ...], float] = {}
            for evidence, log_p in at_site:  # both searches may have found the same words
                p_of[evidence.tokens] = min(log_p, p_of.get(evidence.tokens, 0.0))
            replaying = [again for again in measured if again.replay_rate >= REPLAYS]
            self.unexplained += [p_of[again.tokens] for again in measured if again.replay_rate < REPLAYS]
            for again in without_echoes(replaying, self.clean[site], len(contexts)):
                best.setdefault(frozenset(again.tokens), (again, p_of[again.tokens]))
        confirmed = self._drop_contained(sorted(best.values(), key=lambda pair: (pair[1], pair[0].tokens)))
        if not confirmed or confirmed[0][1] >= self.level:  # replays, but so might a natural word: no evidence alone
            self.unexplained += [log_p for _, log_p in confirmed]
            confirmed = []
        findings, vectors = [], []
        for evidence, log_p in confirmed:
            trigger = self._typed(evidence.tokens)
            vectors.append(PredefinedVector(evidence.site, evidence.pv, trigger))
            findings.append(
                Finding(
                    site=evidence.site,
                    trigger=trigger,
                    trigger_tokens=[
                        str(self.encoder.tokenizer.convert_ids_to_tokens(token)) for token in evidence.tokens
                    ],
                    displacement=round(evidence.displacement, 4),
                    concentration=round(1 - evidence.spread, 4),
                    replay_rate=round(evidence.replay_rate, 4),
                    p_value=math.exp(max(log_p, -700.0)),
                    pv=len(vectors) - 1,
                )
            )
        return findings, PVBank(self.encoder.digest, vectors)

    def _drop_contained(self, found: Sequence[tuple[Evidence, float]]) -> list[tuple[Evidence, float]]:
        """A phrase that holds a trigger found on its own says nothing new."""
        alone = [set(evidence.tokens) for evidence, _ in found]
        return [pair for pair in found if not any(other < set(pair[0].tokens) for other in alone)]

    def _typed(self, tokens: Sequence[int]) -> str | None:
        """The tokens as words a person can type, None where typing them gives other tokens."""
        text = str(self.encoder.tokenizer.decode(list(tokens))).strip()
        again = self.encoder.tokenizer(f"a {text} a", add_special_tokens=False).input_ids[1:-1]
        return text if list(again) == list(tokens) else None

    def coverage(self, candidates: int) -> Coverage:
        """What this scan looked at, and what it cannot see."""
        missed = ["triggers that must stand at a fixed place in the text", "backdoors without a constant output vector"]
        if not candidates:
            missed.append("triggers of several words that fire only together (no mining at this effort)")
        unseen = [site for site in self.encoder.sites if site not in self.sites]
        return Coverage(
            sites=list(self.sites),
            tokens_swept=len(self.allowed),
            candidates=candidates,
            lengths=[1, *([self.plan.mining.length] if candidates else [])],
            positions="random word boundaries of carriers of up to 48 tokens",
            not_covered=[*missed, *(["the sites " + ", ".join(unseen)] if unseen else [])],
        )
