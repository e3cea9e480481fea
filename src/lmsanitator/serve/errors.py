"""Why a request gets no prediction: an HTTP status and one line."""

from collections.abc import Sequence
from math import ceil

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from lmsanitator.errors import LMSanitatorError


class RequestError(LMSanitatorError):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: what was expected and what came, without any of the user's text.
        retry_after: seconds after which it is worth another try.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        """The answer, in the form that the Open Inference Protocol gives its errors."""
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, ceil(self.retry_after)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": str(self)}, self.status, headers)


def malformed(error: ValidationError) -> RequestError:
    """What pydantic found first; its own message would quote the input."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return RequestError(400, f"expected a request as documented{_place(first['loc'])}: {first['msg']}")


def _place(path: Sequence[int | str]) -> str:
    """Where in the body; names that the sender made up are cut short."""
    return f", at {'.'.join(str(part)[:40] for part in path[:6])}" if path else ""
