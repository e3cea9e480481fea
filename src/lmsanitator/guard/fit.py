"""From the bank of a scan to what is watched in a tuned model: the PV filter and the transfer check.

PV filtering as in LMSanitator, section IV-C: a PV that moves no label, or that clean texts hit, is dropped. What is
dropped is recorded with its reason; what cannot be judged is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmsanitator.encoder import Site
from lmsanitator.errors import BankError, UnsupportedError
from lmsanitator.guard.classifier import Tuned, TunedClassifier
from lmsanitator.guard.match import SignMatch
from lmsanitator.guard.transfer import Anchor, find_anchor, list_names
from lmsanitator.guard.trial import Pass, Shown, Trial, run_trial
from lmsanitator.text import Text
from lmsanitator.tune.classifier import encoder_digests
from lmsanitator.vectors import PredefinedVector, PVBank


@dataclass(frozen=True)
class Dropped:
    """A PV that is not watched."""

    pv: int
    """Index into the bank."""
    trigger: str | None
    reason: str


@dataclass(frozen=True)
class Fit:
    """The PVs that are watched, as they are in each pass."""

    kept: tuple[int, ...]
    """Indices into the bank; the order of the columns."""
    passes: dict[Pass, tuple[PredefinedVector, ...]]
    triggered: dict[int, Shown]
    """What came out where the named triggers are at work, by index in the bank."""
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know: vectors that moved, a pass that is not watched."""

    def match(self, name: Pass) -> SignMatch:
        return SignMatch(self.passes[name])

    def triggered_matches(self) -> dict[int, Float[Tensor, "sentences passes vectors"]]:
        """How well the outputs agree with the PVs where the named triggers are at work, by index in the bank."""
        return {
            pv: torch.stack([self.match(name)(shown.outputs(name)) for name in self.passes], 1)
            for pv, shown in self.triggered.items()
        }

    def without(self, dropped: Sequence[Dropped]) -> "Fit":
        """The rest, when some PVs are dropped."""
        gone = {one.pv for one in dropped}
        columns = [column for column, pv in enumerate(self.kept) if pv not in gone]
        return Fit(
            tuple(self.kept[column] for column in columns),
            {name: tuple(vectors[column] for column in columns) for name, vectors in self.passes.items()},
            self.triggered,
            (*self.dropped, *dropped),
            self.notes,
        )


def fit(classifier: Tuned, bank: PVBank, wanted: Sequence[Pass], pool: Sequence[Text], *, instead: bool) -> Fit:
    """Drop the PVs that move no label, and find the others in each wanted pass.

    Args:
        wanted: the passes to watch.
        pool: clean texts, or pairs of them, to try the named triggers in.
        instead: watch the raw pass alone where the prompted one says nothing about some PV; otherwise that is an error.

    Raises:
        BankError: the bank is of another encoder and its triggers do not arrive in this one, or of another width.
        UnsupportedError: the prompted pass says nothing about some PV.
    """
    stale = bank.encoder_digest not in encoder_digests(classifier.classifier, classifier.encoder)
    if stale and not any(vector.trigger for vector in bank):
        raise BankError(f"{_of_another(classifier, bank)}, with no named trigger to check it by")
    if not len(bank):
        return Fit((), dict.fromkeys(wanted, ()), {})
    if len(bank[0].values) != classifier.encoder.hidden_size:
        raise BankError(
            f"expected vectors of {classifier.encoder.hidden_size} values, as this encoder's outputs have, "
            f"got {len(bank[0].values)}"
        )
    blocked = _unreadable(classifier, bank) if "prompted" in wanted else None
    there: tuple[Site, ...] = tuple(site for site in bank.sites if site in classifier.encoder.sites)
    sites: tuple[Site, ...] = there if "prompted" in wanted and not blocked else ()
    trial = run_trial(classifier, bank, pool, prompted=sites, raw=there)
    idle = [Dropped(pv, bank[pv].trigger, "it moves no label") for pv in trial.planted if trial.moves_no_label(pv)]
    idle += [
        Dropped(pv, vector.trigger, f"this model has no {vector.site}")
        for pv, vector in enumerate(bank)
        if vector.site not in there and pv not in {one.pv for one in idle}
    ]
    kept = tuple(pv for pv in range(len(bank)) if pv not in {one.pv for one in idle})
    triggered = {pv: trial.at_work(pv) for pv in kept if pv in trial.planted}
    notes: list[str] = []
    passes: dict[Pass, tuple[PredefinedVector, ...]] = {"raw": tuple(bank[pv] for pv in kept)}
    if stale:
        anchors = _anchors(bank, kept, trial.clean, triggered, "raw")
        gone = _gone(bank, kept, anchors, trial)
        idle += gone
        anchors = [anchor for pv, anchor in zip(kept, anchors, strict=True) if pv not in {one.pv for one in gone}]
        kept = tuple(pv for pv in kept if pv not in {one.pv for one in gone})
        _check_arrived(classifier, bank, kept, anchors)
        notes += _moved(anchors, "encoder")
        passes["raw"] = tuple(anchor.vector for anchor in anchors)
    if "prompted" in wanted:
        anchors = [] if blocked else _anchors(bank, kept, trial.clean, triggered, "prompted")
        blocked = blocked or _lost(anchors)
        if blocked and not instead:
            raise UnsupportedError(f"expected the raw pass to be watched, got the prompted one: {blocked}")
        if blocked:
            notes.append(f"only the raw pass is watched: {blocked}")
        else:
            notes += _moved(anchors, "prompted pass")
            passes["prompted"] = tuple(anchor.vector for anchor in anchors)
    asked: tuple[Pass, ...] = ("raw",) if blocked else tuple(wanted)
    triggered = {pv: triggered[pv] for pv in kept if pv in triggered}
    return Fit(kept, {name: passes[name] for name in asked}, triggered, tuple(idle), tuple(notes))


def _gone(bank: PVBank, kept: Sequence[int], anchors: Sequence[Anchor], trial: Trial) -> list[Dropped]:
    """PVs that tuning has undone: the trigger arrives nowhere and does nothing to labels."""
    return [
        Dropped(pv, bank[pv].trigger, "its trigger no longer arrives at a vector, nor does it move labels")
        for pv, anchor in zip(kept, anchors, strict=True)
        if anchor.arrival == "gone" and trial.does_nothing(pv)
    ]


def _check_arrived(classifier: Tuned, bank: PVBank, kept: Sequence[int], anchors: Sequence[Anchor]) -> None:
    """A bank of another encoder fits when some trigger arrives, and every one that still moves labels."""
    lost = [anchor.vector for anchor in anchors if anchor.arrival == "gone"]
    if lost:
        raise BankError(f"{_of_another(classifier, bank)}, where {list_names(lost)} no longer arrives at one vector")
    if not any(bank[pv].trigger for pv in kept):
        raise BankError(f"{_of_another(classifier, bank)}, where none of its triggers does anything")


def _anchors(
    bank: PVBank, kept: Sequence[int], clean: Shown, triggered: Mapping[int, Shown], name: Pass
) -> list[Anchor]:
    """Each PV in one pass, judged by sentences in which its trigger is at work; taken to hold where none is named."""
    return [
        find_anchor(bank[pv], clean.outputs(name), triggered[pv].outputs(name))
        if pv in triggered
        else Anchor(bank[pv], "holds")
        for pv in kept
    ]


def _of_another(classifier: Tuned, bank: PVBank) -> str:
    here, there = classifier.encoder.digest[:12], bank.encoder_digest[:12]
    return f"expected a report on the encoder of this model ({here}), got one on {there}"


def _unreadable(classifier: Tuned, bank: PVBank) -> str | None:
    """Why the prompted pass has no output to compare, if so."""
    if not isinstance(classifier, TunedClassifier):
        return "a classifier of words is watched in the raw pass"
    if classifier.moved and not all(vector.trigger for vector in bank):
        return (
            "an adapter such as LoRA moves the encoder's outputs, so that PVs without a named trigger, by which they "
            "could be found again, are valid without it only"
        )
    if "mask" in bank.sites and not classifier.has_mask:
        return "the PVs are at the mask, and this classifier's inputs have no mask token"
    return None


def _lost(anchors: Sequence[Anchor]) -> str | None:
    lost = [anchor.vector for anchor in anchors if anchor.arrival == "gone"]
    return f"{list_names(lost)} arrives at no vector there" if lost else None


def _moved(anchors: Sequence[Anchor], where: str) -> list[str]:
    return [
        f"the trigger {anchor.vector.trigger!r} arrives at another vector in the {where}, which is watched instead"
        for anchor in anchors
        if anchor.arrival == "moved"
    ]
