"""Input purging: take the trigger out of flagged texts without knowing what or where it is (LMSanitator, section IV-D).

The texts of a batch are searched together (`search` says how): each round asks the monitor about all of them at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmsanitator.guard.monitor import Monitor
from lmsanitator.guard.parts import Parts, TextParts
from lmsanitator.guard.search import PurgeConfig, Search, search
from lmsanitator.text import Text

_QUESTIONS = 512
"""Questions that go to the encoder at once: what a batch of many flagged texts takes in memory stays bounded."""


@dataclass(frozen=True)
class Purged:
    """A text whose flag has cleared."""

    text: Text
    removed: tuple[str, ...]
    batches: int
    """Rounds of questions to the encoder that the search took for this text, each shared with the other texts."""
    positions: tuple[int, ...] = ()
    """Where the removed words stood among the words of the input."""


def purge(text: Text, monitor: Monitor, config: PurgeConfig) -> Purged | None:
    """The flagged text without its trigger, None where no deletion of few words clears it."""
    return purge_all([text], monitor, config)[0]


def purge_all(texts: Sequence[Text], monitor: Monitor, config: PurgeConfig) -> list[Purged | None]:
    """`purge` for many flagged texts, or pairs of texts, searched side by side."""
    window = monitor.classifier.encoder.window
    return purge_parts([TextParts(text, window) for text in texts], monitor, config)


def purge_parts(inputs: Sequence[Parts], monitor: Monitor, config: PurgeConfig) -> list[Purged | None]:
    """`purge` for many flagged inputs of any kind."""
    if not monitor.kept:
        return [None] * len(inputs)
    triggers = [vector.trigger for vector in monitor.bank if vector.trigger]
    window = monitor.classifier.encoder.window
    gone, rounds = _run([search(one, triggers, monitor.neutral, config, window) for one in inputs], monitor, config)
    return [
        _done(one, positions, taken, config) if positions else None
        for one, positions, taken in zip(inputs, gone, rounds, strict=True)
    ]


def _run(searches: Sequence[Search], monitor: Monitor, config: PurgeConfig) -> tuple[list[list[int] | None], list[int]]:
    """Ask the questions of all searches round by round; a search that takes too many rounds finds nothing."""
    found: list[list[int] | None] = [None] * len(searches)
    rounds = [0] * len(searches)
    answers: dict[int, list[float] | None] = dict.fromkeys(range(len(searches)))
    while answers:
        questions: dict[int, list[Text]] = {}
        for index, answer in answers.items():
            try:
                questions[index] = next(searches[index]) if answer is None else searches[index].send(answer)
            except StopIteration as end:
                found[index] = end.value
        values = _ask([text for asked in questions.values() for text in asked], monitor, config)
        answers = {}
        for index, asked in questions.items():
            answer, values = values[: len(asked)], values[len(asked) :]
            rounds[index] += bool(asked)
            if rounds[index] <= config.rounds:
                answers[index] = answer
    return found, rounds


def _ask(texts: Sequence[Text], monitor: Monitor, config: PurgeConfig) -> list[float]:
    values: list[float] = []
    for start in range(0, len(texts), _QUESTIONS):
        values += monitor.check(texts[start : start + _QUESTIONS], named=config.named).excess.tolist()
    return values


def _done(parts: Parts, gone: Sequence[int], rounds: int, config: PurgeConfig) -> Purged | None:
    """The answer, unless more different words had to go than may."""
    removed = tuple(parts.words[at] for at in gone)
    if len({word.casefold() for word in removed}) > config.most:
        return None
    return Purged(parts.rest(gone), removed, rounds, tuple(gone))
