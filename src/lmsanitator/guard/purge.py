"""Input purging: take the trigger out of flagged texts without knowing what or where it is (LMSanitator, section IV-D).

The texts of a batch are searched together (`search` says how): each round asks the monitor about all of them at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmsanitator.guard.monitor import Monitor
from lmsanitator.guard.search import PurgeConfig, Search, search
from lmsanitator.text import delete, words

_QUESTIONS = 512
"""Questions that go to the encoder at once: what a batch of many flagged texts takes in memory stays bounded."""


@dataclass(frozen=True)
class Purged:
    """A text whose flag has cleared."""

    text: str
    removed: tuple[str, ...]
    batches: int
    """Rounds of questions to the encoder that the search took for this text, each shared with the other texts."""


def purge(text: str, monitor: Monitor, config: PurgeConfig) -> Purged | None:
    """The flagged text without its trigger, None where no deletion of few words clears it."""
    return purge_all([text], monitor, config)[0]


def purge_all(texts: Sequence[str], monitor: Monitor, config: PurgeConfig) -> list[Purged | None]:
    """`purge` for many flagged texts, searched side by side."""
    if not monitor.kept:
        return [None] * len(texts)
    triggers = [vector.trigger for vector in monitor.bank if vector.trigger]
    window = monitor.classifier.encoder.window
    searches = [search(text, triggers, monitor.neutral, config, window) for text in texts]
    gone, rounds = _run(searches, monitor, config)
    return [
        _done(text, positions, taken, config) if positions else None
        for text, positions, taken in zip(texts, gone, rounds, strict=True)
    ]


def _run(searches: Sequence[Search], monitor: Monitor, config: PurgeConfig) -> tuple[list[list[int] | None], list[int]]:
    """Ask the questions of all searches round by round; a search that takes too many rounds finds nothing."""
    found: list[list[int] | None] = [None] * len(searches)
    rounds = [0] * len(searches)
    answers: dict[int, list[float] | None] = dict.fromkeys(range(len(searches)))
    while answers:
        questions: dict[int, list[str]] = {}
        for index, answer in answers.items():
            try:
                questions[index] = next(searches[index]) if answer is None else searches[index].send(answer)
            except StopIteration as end:
                found[index] = end.value
        values = _ask([text for asked in questions.values() for text in asked], monitor)
        answers = {}
        for index, asked in questions.items():
            answer, values = values[: len(asked)], values[len(asked) :]
            rounds[index] += bool(asked)
            if rounds[index] <= config.rounds:
                answers[index] = answer
    return found, rounds


def _ask(texts: Sequence[str], monitor: Monitor) -> list[float]:
    values: list[float] = []
    for start in range(0, len(texts), _QUESTIONS):
        values += monitor.check(texts[start : start + _QUESTIONS]).excess.tolist()
    return values


def _done(text: str, gone: Sequence[int], rounds: int, config: PurgeConfig) -> Purged | None:
    """The answer, unless more different words had to go than may."""
    found = words(text)
    removed = tuple(found[at] for at in gone)
    if len({word.casefold() for word in removed}) > config.most:
        return None
    return Purged(delete(text, set(gone)), removed, rounds)
