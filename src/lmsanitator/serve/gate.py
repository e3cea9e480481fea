"""The outermost layer: who may come in, how many at once, and a line in the log for each.

Plain ASGI around the application, so that nothing that goes wrong inside reaches the server's own error log, which
would write messages that quote texts.
"""

import hashlib
import hmac
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmsanitator.serve.config import ServeConfig
from lmsanitator.serve.errors import RequestError
from lmsanitator.serve.logs import log
from lmsanitator.serve.metrics import Metrics

_OPEN_TO_ALL = ("/", "/v2/health/live", "/v2/health/ready")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Gate:
    """Checks the key, bounds open requests, adds headers, counts and logs.

    `accepted` counts requests whose texts were queued, `answered` those of them that were answered completely.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics) -> None:
        self.app = app
        self.config = config
        self.metrics = metrics
        self.open = 0
        self.accepted = 0
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        facts: dict[str, Any] = {"id": secrets.token_hex(8)}
        scope.setdefault("state", {})["facts"] = facts
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = facts["id"]
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body") and facts.get("accepted"):
                self.answered += 1

        self.open += 1
        try:
            refusal = self._refusal(scope)
            await (refusal.response() if refusal else self.app)(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - a bug, or a client that went away
            log.error("request failed", exc_info=error, extra={"facts": {"id": facts["id"]}})
            if not status:
                await RequestError(500, "something went wrong in the server").response()(scope, receive, answer)
        finally:
            self.open -= 1
            self.accepted += bool(facts.pop("accepted", False))
            self._note(scope, facts, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> RequestError | None:
        if scope["path"] in _OPEN_TO_ALL:
            return None
        if self.config.api_key is not None and not self._has_key(scope):
            return RequestError(401, "expected an API key as Authorization: Bearer, got none or another one")
        if self.open > self.config.max_requests:
            return RequestError(503, f"expected at most {self.config.max_requests} open requests: try later", 1)
        return None

    def _has_key(self, scope: Scope) -> bool:
        """In constant time: digests are compared, so that not even the length of the key shows."""
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        known = hashlib.sha256((self.config.api_key or "").encode()).digest()
        matches = hmac.compare_digest(hashlib.sha256(given.strip().encode("latin-1")).digest(), known)
        return matches and scheme.lower() == "bearer"

    def _note(self, scope: Scope, facts: dict[str, Any], status: int, seconds: float) -> None:
        endpoint = getattr(scope.get("route"), "path", "other")  # the pattern: a path is the sender's text
        self.metrics.requests.labels(endpoint, status).inc()
        self.metrics.seconds.labels(endpoint).observe(seconds)
        shown = {"endpoint": endpoint, "method": scope["method"][:10], "status": status}
        log.info("request", extra={"facts": {**shown, "milliseconds": round(1000 * seconds, 1), **facts}})
