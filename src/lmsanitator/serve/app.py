"""The routes: Open Inference Protocol v2, `POST /classify`, metrics and the page."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as RoutingError

from lmsanitator import __version__
from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve import protocol
from lmsanitator.serve.answer import Answer, Answers, explain
from lmsanitator.serve.batching import Batcher
from lmsanitator.serve.body import Question, check_texts, parse_question, read_body
from lmsanitator.serve.config import ServeConfig, Served
from lmsanitator.serve.errors import RequestError
from lmsanitator.serve.gate import Gate
from lmsanitator.serve.logs import log
from lmsanitator.serve.metrics import Metrics, outcome
from lmsanitator.serve.page import HEADERS, PAGE


def create_app(served: Served, config: ServeConfig) -> Gate:
    """The service as an ASGI application."""
    service = Service(served, config)
    # the interactive documentation of FastAPI loads scripts from elsewhere
    app = FastAPI(
        title="lmsanitator", version=__version__, docs_url=None, redoc_url=None, lifespan=lambda _: service.running()
    )
    gate = Gate(app, config, service.metrics)
    service.gate = gate
    question = {"requestBody": {"content": {"application/json": {"schema": Question.model_json_schema()}}}}
    inference = {"requestBody": {"content": {"application/json": {"schema": protocol.Inference.model_json_schema()}}}}
    app.add_api_route("/", service.page, response_class=HTMLResponse, include_in_schema=False)
    app.add_api_route("/metrics", service.scrape, include_in_schema=False)
    app.add_api_route("/classify", service.classify, methods=["POST"], openapi_extra=question)
    app.add_api_route("/v2/health/live", service.live)
    app.add_api_route("/v2/health/ready", service.ready)
    app.add_api_route("/v2", service.server_metadata)
    app.add_api_route("/v2/models/{model}", service.model_metadata)
    app.add_api_route("/v2/models/{model}/ready", service.model_ready)
    app.add_api_route("/v2/models/{model}/infer", service.infer, methods=["POST"], openapi_extra=inference)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RoutingError, _not_routed)
    app.add_exception_handler(Exception, _crashed)
    return gate


class Service:
    """What the routes do."""

    gate: Gate

    def __init__(self, served: Served, config: ServeConfig) -> None:
        self.served = served
        self.config = config
        self.metrics = Metrics(served)
        self.batcher = Batcher(served, config, self.metrics.batches.observe)
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From start to stop; uvicorn stops it when the last open request has been answered."""
        async with self.batcher:
            log.info("ready", extra={"facts": {"model": self.config.name}})
            yield
        log.info("stopped", extra={"facts": {"accepted": self.gate.accepted, "answered": self.gate.answered}})

    async def page(self) -> HTMLResponse:
        return HTMLResponse(PAGE, headers=HEADERS)

    async def scrape(self) -> Response:
        return Response(self.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def classify(self, request: Request) -> Answer | Answers:
        question = parse_question(await self._read(request))
        texts = question.texts if question.text is None else [question.text]
        answers = [explain(one, self.served) for one in await self._check(request, texts or [])]
        return answers[0] if question.text is not None else Answers(predictions=answers)

    async def live(self) -> dict[str, bool]:
        return {"live": True}

    async def ready(self) -> dict[str, bool]:
        if self.batcher.stuck:
            raise RequestError(503, "expected a guard that answers, it has not for too long")
        return {"ready": True}

    async def server_metadata(self) -> dict[str, object]:
        return {"name": "lmsanitator", "version": __version__, "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model: str) -> dict[str, object]:
        self._known(model)
        return protocol.metadata(model)

    async def model_ready(self, model: str) -> dict[str, object]:
        self._known(model)
        return {"name": model, **await self.ready()}

    async def infer(self, request: Request, model: str) -> Response:
        self._known(model)
        asked, texts = protocol.parse(await self._read(request), request.headers.get(protocol.LENGTH_HEADER))
        content, headers = protocol.response(asked, await self._check(request, texts), model)
        return Response(content, headers=headers)

    def _known(self, model: str) -> None:
        if model != self.config.name:
            raise RequestError(404, f"expected the model {self.config.name}, there is no other one")

    async def _read(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self.config.timeout):
                return await read_body(request, self.config.max_bytes)
        except TimeoutError as error:
            raise RequestError(408, f"expected a whole body within {self.config.timeout:g} s") from error

    async def _check(self, request: Request, texts: list[str]) -> list[GuardedPrediction]:
        """Queue texts and wait for their predictions.

        Raises:
            RequestError: 4xx for the texts, 503 where there is no room, 504 when it takes too long, 500 where a check
                failed: then the whole request has no answer.
        """
        check_texts(texts, self.config)
        answers = self.batcher.submit(texts)
        facts = request.state.facts
        facts |= {"accepted": True, "texts": len(texts)} | ({"text": texts} if self.config.log_text else {})
        try:
            async with asyncio.timeout(self.config.timeout):
                found = await asyncio.gather(*answers)
        except TimeoutError as error:
            raise RequestError(504, f"expected an answer within {self.config.timeout:g} s, there was none") from error
        finally:
            self.batcher.withdraw(answers)
        self.metrics.count(found)
        facts["outcomes"] = dict(Counter(map(outcome, found)))
        sound = [one for one in found if one is not None]
        if len(sound) < len(found):
            raise RequestError(
                500, f"expected {len(found)} texts to be checked, the check of {len(found) - len(sound)} failed"
            )
        return sound


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        raise error
    return error.response()


async def _not_routed(request: Request, error: Exception) -> Response:
    if not isinstance(error, RoutingError):
        raise error
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _crashed(request: Request, error: Exception) -> Response:
    return RequestError(500, "something went wrong in the server").response()
