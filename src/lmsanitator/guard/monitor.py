"""Output monitoring: does the encoder's output sit on a predefined vector? (LMSanitator, section IV-D)

Two passes can be watched. The *prompted* pass is the one that makes the prediction, so watching it is free, but the
tuning moves the outputs. The *raw* pass is the encoder alone, as it was scanned: it costs a second forward pass and is
sure. `auto` watches the prompted pass and asks the raw one about the few texts on which the first leaves doubt.
`benchmarks/guard.py` measures what each of them costs and misses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmsanitator.detect import ScanReport
from lmsanitator.encoder import Site
from lmsanitator.errors import BankError, CorpusError, UsageError
from lmsanitator.guard.classifier import Reading, Tuned
from lmsanitator.guard.fit import Dropped, Fit, fit
from lmsanitator.guard.match import SignMatch
from lmsanitator.guard.named import NamedTriggers, halfway, normal_of
from lmsanitator.guard.thresholds import clean_texts, highest, settle
from lmsanitator.guard.trial import Pass, without_triggers
from lmsanitator.text import Text, draw, packaged, sides, words
from lmsanitator.vectors import PVBank

Watch = Literal["auto", "raw", "prompted", "both"]
DOUBT = 0.02
"""Share of clean texts that the raw pass is asked about under `auto`: what that pass costs in the mean."""
_NEUTRAL = range(6, 13)
_NOT_ASKED = -1.0  # a match below any other: this pass was not asked about this text


@dataclass(frozen=True)
class Check:
    """What the monitor saw of each text: the PV that is nearest to its threshold or furthest beyond."""

    excess: Float[Tensor, "texts"]
    """Match over threshold; a text is flagged above 0. 1 for a text whose outputs are not finite: what could not be
    checked is not clean."""
    match: Float[Tensor, "texts"]
    threshold: Float[Tensor, "texts"]
    pv: Int[Tensor, "texts"]
    """Index into the bank; -1 where no PV is watched."""

    @property
    def flags(self) -> Bool[Tensor, "texts"]:
        return self.excess > 0


def bank_in(report: ScanReport | PVBank) -> PVBank:
    """The bank of a scan, or the one given.

    Raises:
        BankError: the report has findings and no vectors, as one that was read from its JSON alone.
    """
    if isinstance(report, PVBank):
        return report
    if report.findings and not len(report.bank):
        raise BankError(
            f"expected the PV bank of a scan with {len(report.findings)} findings, the report came without: "
            "ScanReport.load reads both"
        )
    return report.bank


def remarks_on(report: ScanReport, monitor: "Monitor") -> list[str]:
    """What a person should know of a guard by this report: the monitor's remarks, and that there is nothing to watch
    for where the scan was not sure."""
    unsure = report.verdict == "inconclusive" and not len(report.bank)
    nothing = ["the scan is inconclusive and has no PV to watch for: every text passes as it is"] if unsure else []
    return [*monitor.remarks, *nothing]


class Monitor:
    """Watches one classifier for the PVs of one bank.

    Args:
        watch: the pass or passes to watch.
        rate: share of clean texts that may be flagged (`Thresholds` says what is guaranteed).
        clean: clean texts, or pairs of texts, to set thresholds by, of the kind that will be served; packaged texts
            where not given. Pairs are what the named triggers are tried in as well (`fit`).

    Raises:
        BankError: the bank belongs to another encoder and does not fit this one.
        CorpusError: too few clean texts for the rate, or pairs among single ones.
        UnsupportedError: the prompted pass of this classifier says nothing about these PVs.
        UsageError: a rate that is no share.
    """

    def __init__(
        self,
        classifier: Tuned,
        bank: PVBank,
        *,
        watch: Watch = "raw",
        rate: float = 0.005,
        clean: Sequence[Text] | None = None,
    ) -> None:
        if not 0 < rate < 1:
            raise UsageError(f"expected a false-flag rate between 0 and 1, got {rate:g}")
        if clean is not None and not clean:
            raise CorpusError("expected clean texts to set thresholds by, got none")
        self.classifier, self.bank = classifier, bank
        self._doubt: float | None = None
        self.pairs = clean is not None and any(not isinstance(text, str) for text in clean)
        """Whether the thresholds are those of pairs."""
        if clean is not None and self.pairs and any(isinstance(text, str) for text in clean):
            raise CorpusError("expected clean texts of one kind, got pairs among single ones")
        sentences = [carrier.text for carrier in packaged("en")]
        tried = clean if clean is not None and self.pairs else sentences
        fitted = fit(classifier, bank, _wanted(classifier, bank, watch), tried, instead=watch == "auto")
        if fitted.kept:
            texts: Sequence[Text]
            if clean is None:
                texts = clean_texts(without_triggers(classifier.encoder, sentences, bank))
            else:
                texts = draw(without_triggers(classifier.encoder, clean, bank), len(clean), seed=0)  # in random order
            fitted = self._calibrate(fitted, texts, rate, sparing=watch == "auto")
        self.kept, self.dropped, self.notes = fitted.kept, fitted.dropped, fitted.notes
        self.passes: tuple[Pass, ...] = tuple(fitted.passes) if fitted.kept else ()
        """The passes that are watched, the sparing one first."""
        self._tests = {name: fitted.match(name) for name in self.passes}
        self.sites: tuple[Site, ...] = bank.sites
        self.prompted_sites: tuple[Site, ...] = self._tests["prompted"].sites if "prompted" in self.passes else ()

    @property
    def remarks(self) -> list[str]:
        """What a person should know, one line each: PVs that are not watched and why, vectors that moved, and that no
        text is ever flagged where none of them is watched."""
        named = [f"PV {one.pv} ({one.trigger or 'no trigger named'})" for one in self.dropped]
        lines = [f"{name} is not watched: {one.reason}" for name, one in zip(named, self.dropped, strict=True)]
        nothing = ["no PV is watched: every text passes as it is"] if self.dropped and not self.kept else []
        return [*lines, *self.notes, *nothing]

    def _calibrate(self, fitted: Fit, texts: Sequence[Text], rate: float, *, sparing: bool) -> Fit:
        """Set the thresholds, and drop the PVs that clean texts hit."""
        parts = [_match(self.classifier, fitted.match(name), name, texts) for name in fitted.passes]
        matches, triggered = torch.stack(parts, 1), fitted.triggered_matches()
        sentences = torch.cat([matches[:0], *triggered.values()])
        watched, thresholds = settle(matches, sentences, rate, 1 / self.classifier.encoder.hidden_size)
        middle = halfway(matches, {fitted.kept.index(pv): found for pv, found in triggered.items()})[:, watched]
        hit = [pv for column, pv in enumerate(fitted.kept) if column not in watched]
        fitted = fitted.without([Dropped(pv, self.bank[pv].trigger, "clean texts hit it") for pv in hit])
        if thresholds is None:
            return fitted
        self.thresholds, matches = thresholds, matches[:, :, watched]
        triggers = [self.bank[pv].trigger for pv in fitted.kept]
        self._named = NamedTriggers(triggers, middle, normal_of(self.classifier.encoder.tokenizer))
        self.neutral = _neutral(texts, (matches - thresholds.flag).flatten(1).amax(1))
        if sparing and len(fitted.passes) > 1:
            held_out = thresholds.distance(matches)[-thresholds.texts :, 0]
            self._doubt = highest(held_out.amax(1), DOUBT)
        return fitted

    def flags(self, texts: Sequence[Text], reading: Reading | None = None) -> Bool[Tensor, "texts"]:
        """Whether each text is flagged: on any PV, in any watched pass."""
        return self.check(texts, reading).flags

    def check(self, texts: Sequence[Text], reading: Reading | None = None, *, named: bool = True) -> Check:
        """Compare the outputs of texts with the PVs.

        Args:
            reading: the prompted pass of these texts where it was made already.
            named: flag texts that hold a named trigger sooner (`NamedTriggers`).
        """
        if not self.kept or not texts:
            nothing = torch.full((len(texts),), torch.nan)
            return Check(torch.full_like(nothing, -1), nothing, nothing, torch.full_like(nothing, -1).long())
        match = torch.full((len(texts), len(self.passes), len(self.kept)), _NOT_ASKED)
        asked = list(range(len(texts)))
        for number, (name, test) in enumerate(self._tests.items()):
            if number and self._doubt is not None:
                asked = self._doubtful(match, self._doubt)
            if asked:
                rows = [texts[index] for index in asked]
                match[asked, number] = _match(self.classifier, test, name, rows, reading)
        flag = self.thresholds.flag.expand_as(match)
        return self._judge(match.flatten(1), (self._named.lowered(flag, match, texts) if named else flag).flatten(1))

    def _doubtful(self, match: Float[Tensor, "texts passes vectors"], doubt: float) -> list[int]:
        """The texts that the first pass neither flags nor leaves unsuspicious."""
        distance = self.thresholds.distance(match)[:, 0].amax(1)
        flagged = (match > self.thresholds.flag)[:, 0].any(1)
        found: list[int] = (~(distance <= doubt) & ~flagged).nonzero().flatten().tolist()
        return found

    def _judge(self, match: Float[Tensor, "texts columns"], flag: Float[Tensor, "texts columns"]) -> Check:
        excess, column = (match - flag).max(1)  # NaN where any match is
        sound = torch.isfinite(excess)
        vectors = torch.tensor(self.kept)[column % len(self.kept)]
        return Check(
            torch.where(sound, excess, 1.0),
            match.gather(1, column[:, None])[:, 0],
            flag.gather(1, column[:, None])[:, 0],
            torch.where(sound, vectors, -1),
        )


def _wanted(classifier: Tuned, bank: PVBank, watch: Watch) -> tuple[Pass, ...]:
    if watch == "both" or (watch == "auto" and not (classifier.one_pass and "mask" not in bank.sites)):
        return ("prompted", "raw")
    return ("prompted",) if watch == "auto" else (watch,)  # without an adapter the two passes are one


def _match(
    classifier: Tuned, test: SignMatch, name: Pass, texts: Sequence[Text], reading: Reading | None = None
) -> Float[Tensor, "texts vectors"]:
    """The matches of texts in one pass."""
    if name == "raw":
        return test(classifier.encoder.outputs_of_texts(texts, test.sites))
    return test((reading or classifier.read(texts, test.sites)).outputs)


def _neutral(texts: Sequence[Text], excess: Float[Tensor, "texts"]) -> Text:
    """The least suspicious clean sentence of ordinary length, or pair that begins with one, to try words in."""
    order: list[Text] = [texts[index] for index in excess.argsort().tolist()]
    return next((text for text in order if len(words(sides(text)[0])) in _NEUTRAL), order[0])
