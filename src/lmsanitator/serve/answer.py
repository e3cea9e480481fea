"""What `POST /classify` answers."""

from typing import cast

from pydantic import BaseModel

from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve.config import Served


class Answer(BaseModel):
    """What became of one text, and why."""

    label: str | None
    """None: the text was flagged and could not be cleared, so it is not classified."""
    score: float | None
    flagged: bool
    removed: list[str]
    reasons: list[str]
    """Why each of the removed words had to go."""
    text: str
    """What was classified."""


class Answers(BaseModel):
    """Several texts, in the order of the request."""

    predictions: list[Answer]


def explain(prediction: GuardedPrediction, served: Served) -> Answer:
    """A prediction with a reason for each removed word."""
    found = [(word, served.trigger_of(word)) for word in prediction.removed]
    return Answer(
        label=prediction.label,
        score=prediction.score if prediction.label is not None else None,
        flagged=prediction.flagged,
        removed=list(prediction.removed),
        reasons=[
            "without it the encoder's output no longer sits on a predefined vector"
            if trigger is None
            else f"the scan found it in the trigger {trigger!r}"
            for _, trigger in found
        ],
        text=cast(str, prediction.text),  # the server takes no pairs
    )
