"""Reading a request's body and the texts in it, within the limits."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.requests import ClientDisconnect, Request

from lmsanitator.serve.config import ServeConfig
from lmsanitator.serve.errors import RequestError, malformed
from lmsanitator.text import words


class Question(BaseModel):
    """The body of `POST /classify`: one text or several."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = None
    texts: list[str] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Question":
        if (self.text is None) == (self.texts is None):
            raise ValueError("expected either text or texts")
        return self


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        RequestError: 413, it is longer than `limit` bytes; 415, it is compressed; 400, it broke off.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "expected a body that is not compressed")
    announced = request.headers.get("content-length", "")
    too_long = RequestError(413, f"expected a body of at most {limit:,} bytes, got more")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_long
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > limit:
                raise too_long
    except ClientDisconnect as error:
        raise RequestError(400, "expected a whole body, it broke off") from error
    return bytes(parts)


def parse_question(body: bytes) -> Question:
    """Raises RequestError (400) for anything but a `Question` in JSON of valid UTF-8."""
    try:
        return Question.model_validate_json(body)
    except ValidationError as error:
        raise malformed(error) from error


def check_texts(texts: Sequence[str], config: ServeConfig) -> None:
    """Raises RequestError: 413 for too many texts or words, 400 for no text at all or one without words."""
    if not texts:
        raise RequestError(400, "expected at least one text, got none")
    if len(texts) > config.max_texts:
        raise RequestError(413, f"expected at most {config.max_texts} texts in a request, got {len(texts)}")
    for number, text in enumerate(texts):
        length = len(words(text))
        if not length:
            raise RequestError(400, f"expected words, text {number} has none")
        if length > config.max_words:
            raise RequestError(413, f"expected at most {config.max_words:,} words, text {number} has {length:,}")
