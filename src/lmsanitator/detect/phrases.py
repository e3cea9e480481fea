"""The search for phrases: words that only fire together, grown on the way to mined PVs, then shrunk."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.detect.blanks import Vocabulary
from lmsanitator.detect.config import Plan, sites_to_mine
from lmsanitator.detect.confirm import Suspect
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.journal import Finds, Journal, pack_finds, unpack_finds
from lmsanitator.detect.lexicon import typed
from lmsanitator.detect.mining import Candidate, mine
from lmsanitator.detect.mining import Watch as MiningWatch
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.recovery import Phrases, prove
from lmsanitator.detect.replay import CLEAN, Replayer, clean_spreads, leads_between
from lmsanitator.detect.seen import Searched
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.toward import Watch, words_toward
from lmsanitator.detect.ways import Ways
from lmsanitator.encoder import FrozenEncoder, Site, one_vector
from lmsanitator.progress import Progress

_GROWING, _ASKED = (3, 12), (8, 24)
"""Contexts that variants of a trigger are measured in, and those that are asked for them, with their longest length."""


@dataclass
class PhraseSearch:
    """One search under way.

    Args:
        texts: what contexts are made of.
        passages: long natural text that finds have to stand up to.
        allowed: the tokens a phrase may be made of.
        log_level: log of the p-value that is enough to stop.
        share: of the false positives that the level allows, those that this search may be to blame for.
    """

    encoder: FrozenEncoder
    plan: Plan
    texts: Sequence[str]
    passages: Replayer
    allowed: Sequence[int]
    log_level: float
    share: float
    seed: int
    progress: Progress
    journal: Journal
    candidates: int = 0
    """Vectors that were mined, and followed in words."""
    searched: list[Searched] = field(default_factory=list)
    """How strong the words on the way became."""
    _stages: dict[Site, tuple[Stage, Stage]] = field(default_factory=dict)

    def run(self, known: Sequence[Evidence]) -> list[Suspect]:
        """Phrases that send text to one place, mined away from what is known and in other text each time, for as long
        as there is something new to be found: a weak find is often the first sign of a phrase that the next round
        finds whole.

        Args:
            known: triggers that were found already. What fires less surely does not belong there: it may be a part of
                the very phrase that is looked for.
        """
        known = list(known)
        found: list[Suspect] = []
        for number in range(self.plan.rounds):
            new = self._new(self._once(f"phrases-{number}", partial(self.recovered, tuple(known), number)), known)
            known += self._significant(new)
            found += new
            if not new:
                break
        return found

    def _once(self, stage: str, find: Callable[[], Finds]) -> list[Suspect]:
        """What one step of a round finds, or had found before the scan was cut off."""
        finds = self.journal.once(stage, find, pack_finds, unpack_finds)
        self.candidates += finds.candidates
        self.searched += finds.searched
        return finds.suspects

    def _new(self, found: Sequence[Suspect], known: Sequence[Evidence]) -> list[Suspect]:
        """What does not lead where something that is known does, or between such things."""

        def at_site(item: Suspect) -> list[Evidence]:
            return [other for other in known if one_vector(other.site) == item.evidence.site]

        return [item for item in found if not leads_between(item.evidence, at_site(item), self.passages)]

    def _significant(self, found: Sequence[Suspect]) -> list[Evidence]:
        return [item.evidence for item in found if item.log_p is not None and item.log_p < self.log_level]

    def mine(
        self, known: Sequence[Evidence], number: int, watch: MiningWatch | None = None
    ) -> dict[Site, list[Candidate]]:
        """Mine at all sites, away from the PVs that are known already."""
        shape = self.plan.mining
        seed = self.seed + 101 * number + 2
        contexts = make_contexts(self.encoder, self.texts, shape.contexts, longest=shape.context_tokens, seed=seed)
        return mine(
            self.encoder,
            contexts,
            {site: self.spread[site] for site in sites_to_mine(self.passages.sites)},
            shape,
            known=self._pvs(known),
            seed=seed,
            progress=self.progress,
            watch=watch,
        )

    def recovered(self, known: Sequence[Evidence], number: int) -> Finds:
        """What is mined away from what is known, in words."""
        return self.recover(self.mine(known, number), number)

    def recover(self, mined: Mapping[Site, Sequence[Candidate]], number: int) -> Finds:
        """Words that lead where the mined candidates do; those of candidates that found nothing are the null for the
        others."""
        short = self._short(number)
        phrases: dict[Site, Phrases] = {}
        searched: list[Searched] = []
        for site, candidates in mined.items():
            steps: list[list[float]] = []
            sequences = self.toward(site, candidates, number, steps.append)
            searched.append(self._told(site, sequences, steps))
            phrases[site] = self._prove(site, sequences, short)
        return Finds(self._suspects_of(phrases), sum(map(len, mined.values())), searched)

    def toward(
        self, site: Site, mined: Sequence[Candidate], number: int, watch: Watch | None = None
    ) -> list[tuple[int, ...]]:
        """The strongest words on the way to the candidates' PVs, in other text than these were mined in."""
        shape = self.plan.toward
        counts = (shape.asked, shape.contexts, shape.contexts)
        asked, growing, refining = (
            Stage(
                self.encoder,
                make_contexts(self.encoder, self.texts, count, longest=shape.context_tokens, seed=seed),
                site,
                self.spread[site],
            )
            for seed, count in enumerate(counts, self.seed + 101 * number + 4)
        )
        pvs = self.spread[site].standardise(torch.stack([candidate.pv for candidate in mined]))
        tell = partial(self.progress, f"recovering words at {site}")
        return words_toward(asked, growing, refining, pvs, self.vocabulary, shape, tell, watch)

    def _told(self, site: Site, sequences: Sequence[tuple[int, ...]], steps: Sequence[Sequence[float]]) -> Searched:
        """How strong the words toward each vector became, with those they ended on."""
        strengths = [[round(value, 4) for value in of_vector] for of_vector in zip(*steps, strict=True)]
        phrases = [" ".join(self.encoder.tokenizer.convert_ids_to_tokens(list(tokens))) for tokens in sequences]
        return Searched(site=site, phrases=phrases, strengths=strengths)

    def _pvs(self, known: Sequence[Evidence]) -> dict[Site, Float[Tensor, "known hidden"]]:
        """The PVs of what is known, by site."""
        pvs = {site: [item.pv for item in known if one_vector(item.site) == site] for site in self.passages.sites}
        return {site: torch.stack(found) for site, found in pvs.items() if found}

    def _prove(self, site: Site, sequences: Sequence[tuple[int, ...]], short: Replayer) -> Phrases:
        allowed = set(self.allowed)
        kept = [tuple(token for token in tokens if token in allowed) for tokens in sequences]
        return prove(self.passages, short, site, kept, allowed, tried=self.plan.tried)

    def _short(self, number: int) -> Replayer:
        contexts = make_contexts(self.encoder, self.texts, 8, longest=24, seed=self.seed + 101 * number + 3)
        return Replayer(self.encoder, self.passages.sites, contexts, self.spread, exact=False)

    def _suspects_of(self, phrases: Mapping[Site, Phrases]) -> list[Suspect]:
        """The phrases that send passages to one place where no clean text is, with p-values corrected for the sites and
        all rounds there may be. Those of p = 1 are none: in short windows a word said six times does as much."""
        found: list[Suspect] = []
        trials = math.log(len(phrases) * 2 * self.plan.rounds / self.share)
        for site, at_site in phrases.items():
            for item, own in zip(self.passages.measure(list(at_site))[site], at_site.values(), strict=True):
                log_p = own + trials
                if item.fires and log_p < 0:
                    found.append(Suspect(item, log_p))
        return found

    def ways(self, site: Site, tokens: tuple[int, ...]) -> Ways:
        """The ways to where a trigger leads in short texts, for whoever has one to go on from."""
        growing, asked = self._growing(site)
        ways = Ways(growing, torch.zeros(1, self.encoder.hidden_size), self.vocabulary, asked)
        ways.follow([tokens])
        return ways

    def _growing(self, site: Site) -> tuple[Stage, Stage]:
        """Where variants of a trigger are measured, and what is asked for them."""
        if site not in self._stages:
            self._stages[site] = self._stage(site, _GROWING, self.seed), self._stage(site, _ASKED, self.seed + 1)
        return self._stages[site]

    def _stage(self, site: Site, shape: tuple[int, int], seed: int) -> Stage:
        count, longest = shape
        contexts = make_contexts(self.encoder, self.texts, count, longest=longest, seed=seed)
        return Stage(self.encoder, contexts, site, self.spread[site])

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens a phrase may be made of, by their embeddings, and which of them are common words."""
        allowed = set(self.allowed)
        texts = self.encoder.tokenizer(list(self.texts), add_special_tokens=False).input_ids
        counts = Counter(token for row in texts for token in row if token in allowed)
        ranked = (token for token, _ in counts.most_common())
        common = (token for token in ranked if (typed(self.encoder, (token,)) or "").isalpha())
        return Vocabulary(self.encoder, self.allowed, list(islice(common, self.plan.toward.pairs.common)))

    @cached_property
    def spread(self) -> dict[Site, CleanSpread]:
        """The spread of clean outputs in the short contexts that phrases are grown, mined and polished in."""
        contexts = make_contexts(self.encoder, self.texts, CLEAN, longest=24, seed=self.seed)
        return clean_spreads(self.encoder, contexts, self.passages.sites)
