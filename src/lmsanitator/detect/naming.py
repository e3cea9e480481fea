"""Naming: which word was meant.

What a search finds is often not the planted word but a part of it, or a relative that shares pieces with it and fires
as well, if less surely. In long text they are hard to tell apart, since there whether anything fires at all differs
most from passage to passage. In short text everything fires, and the planted word does two things better than any word
near it: it holds the outputs closer together, and takes them further, since the attack has taught the encoder to end at
the PV with this word and no other. Words that contain it often do the one, hardly ever the other. So the PV is taken to
be where the furthest word leads, and words are compared by how close to it outputs end. From the word that was found
one goes to the nearest word (`variants`) that is better, as long as there is one. Company helps a little whatever it
is; so what is longer, or stands in no dictionary, has to be better by more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.detect.blanks import Tokens
from lmsanitator.detect.confirm import Confirmed, distinct
from lmsanitator.detect.evidence import REPLAYS, Evidence
from lmsanitator.detect.jointly import SAME_KIND
from lmsanitator.detect.lexicon import typed
from lmsanitator.detect.replay import Replayer
from lmsanitator.detect.variants import Variants
from lmsanitator.detect.ways import Ways
from lmsanitator.encoder import Site, one_vector
from lmsanitator.progress import Progress, silent

LONGER, TERM, MADE_UP, UNTYPED = 0.095, 0.12, 0.4, 0.9
"""By how much outputs have to end closer to the PV, as the mean logarithm of their square distance from it (`LEAST`
added), with each token more of a word of the dictionary; of a term; of another word; and with what nobody can type.
Chosen on the part `choose` of the zoo, between what the pieces of planted words gain and what other pieces do beside
them."""
LEAST = 0.02
"""Square distance from the PV that tells nothing, as a share of the square of the way that the word goes that was
found: where that leads all but on the PV, company may halve what is left, which is next to nothing all the same. Chosen
on the part `choose` of the zoo, where pieces that were planted and others are the furthest apart with it."""
_NOTHING = 1e-12
"""The same where the word leads nowhere."""
SCREENED, TRIED = 24, 3
"""Of each kind of variants those that are tried in a few texts, and in many."""
ROUNDS = 8
"""Steps from word to word, the most."""
MOST = 16
"""Triggers that are named anew, the most significant first."""


class Led(NamedTuple):
    """Where a word leads, standardised."""

    outputs: Float[Tensor, "texts hidden"]
    shift: Float[Tensor, "hidden"]
    """Of the mean output, from where it is without the word."""


@dataclass
class Naming:
    """The search for the word that was meant.

    Args:
        replayer: the fresh passages that triggers are confirmed in; what does not replay there is no name.
        judging: many short texts, to compare words in.
        ways: gives the ways to where a word leads at a site, in other short texts.
        variants: what a word may become.
    """

    replayer: Replayer
    judging: Replayer
    ways: Callable[[Site, Tokens], Ways]
    variants: Variants

    def name(self, found: Sequence[Confirmed], progress: Progress = silent) -> list[Confirmed]:
        """The same triggers, each in the words that were meant, as far as can be told. They keep their p-values."""
        done: list[Confirmed] = []
        for number, item in enumerate(found[:MOST]):
            progress("naming triggers", number / len(found))
            done.append(self.named(item))
        return distinct([*done, *found[MOST:]], self.replayer)

    def named(self, item: Confirmed) -> Confirmed:
        """One trigger. Whole words are neither added nor left out: that is what `shrink` is for."""
        if not self.variants.one_word(item.evidence.tokens):
            return item
        site = one_vector(item.evidence.site)
        meant = self._meant(item.evidence.tokens, item.evidence)
        if meant == item.evidence.tokens:
            return item
        evidence = self.replayer.measure([meant])[site][0]
        if not evidence.replays and (item.evidence.replays or evidence.constant_rate < REPLAYS):
            return item
        return replace(item, evidence=replace(evidence, site=item.evidence.site), elsewhere=())

    def _meant(self, found: Tokens, evidence: Evidence) -> Tokens:
        """The word that one arrives at, from variant to better variant."""
        site = one_vector(evidence.site)
        led = self._led([found], site)
        least = max(LEAST * led[found].shift.square().mean().item(), _NOTHING)
        path = [found]
        for _ in range(ROUNDS):
            ways = self.ways(site, path[-1])
            tried = [tokens for kind in self.variants.of(path[-1], ways) for tokens in self._strongest(kind, ways)]
            led |= self._led([tokens for tokens in dict.fromkeys(tried) if tokens not in led], site)
            nearer = self._nearest(path[-1], led, least)
            if nearer in path:
                break
            path.append(nearer)
        return path[-1]

    def _strongest(self, words: Sequence[Tokens], ways: Ways) -> list[Tokens]:
        """Of many words those that go furthest in one text, of these the strongest in a few."""
        toward = [(0, tokens) for tokens in words]
        gone = ways.gone_in_one(toward)
        toward = [toward[place] for place in _largest(gone, SCREENED)]
        strengths = [strong for _, strong in ways.measured(toward)]
        return [toward[place][1] for place in _largest(strengths, TRIED)]

    def _led(self, words: Sequence[Tokens], site: Site) -> dict[Tokens, Led]:
        """Where each word leads in the texts that words are compared in."""
        if not words:
            return {}
        clean = [self.judging.clean(len(tokens))[site].mean(0) for tokens in words]
        outputs = self.judging.outputs(words)[site]
        return {
            tokens: Led(out, out.mean(0) - before) for tokens, out, before in zip(words, outputs, clean, strict=True)
        }

    def _nearest(self, here: Tokens, led: Mapping[Tokens, Led], least: float) -> Tokens:
        """The word that brings outputs closest to the PV, of those that lead much the same way as `here`."""
        scores = self._scores(here, led, least)
        return min(scores, key=scores.__getitem__)

    def _scores(self, here: Tokens, led: Mapping[Tokens, Led], least: float) -> dict[Tokens, float]:
        """How far from the PV outputs end with each of these that leads much the same way as `here`, with what speaks
        against it.

        The PV is where the furthest word leads that is whole or in the dictionary; for a word that goes further still,
        where it leads itself. A made-up word tells nothing of the others: pieces may go further for reasons of their
        own.
        """
        way = functional.normalize(led[here].shift, dim=0)
        alike = {
            tokens: one
            for tokens, one in led.items()
            if tokens == here or functional.cosine_similarity(one.shift, way, dim=0) > SAME_KIND
        }
        gone = {tokens: (one.shift @ way).item() for tokens, one in alike.items()}
        furthest = max(filter(self._known, alike), key=gone.__getitem__, default=here)
        scores: dict[Tokens, float] = {}
        for tokens, one in alike.items():
            pv = alike[furthest if gone[tokens] < gone[furthest] else tokens].outputs.mean(0)
            away = (one.outputs - pv).square().mean(-1)
            scores[tokens] = (away + least).log().mean().item() + self._doubt(tokens)
        return scores

    def _known(self, tokens: Tokens) -> bool:
        """Whether it is a word of one token, or of the dictionary."""
        return tokens in self.variants.spelled or (len(tokens) == 1 and tokens[0] not in self.variants.pieces)

    def _doubt(self, tokens: Tokens) -> float:
        """What speaks against a word: its length, and that it is none."""
        written = typed(self.replayer.encoder, tokens)
        if written is None:
            return UNTYPED + MADE_UP * (len(tokens) - 1)
        each = LONGER if tokens in self.variants.spelled else TERM if written in self.variants.terms else MADE_UP
        return each * (len(tokens) - 1)


def _largest(values: Sequence[float], count: int) -> list[int]:
    """Places of the largest values, the largest first."""
    return sorted(range(len(values)), key=lambda place: -values[place])[:count]
