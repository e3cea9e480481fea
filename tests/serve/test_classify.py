"""POST /classify: answers with reasons, clear 4xx for what makes no sense, never a label without a check."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from lmsanitator.errors import UsageError
from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve import ServeConfig, Served, run
from lmsanitator.serve.batching import Batcher
from lmsanitator.serve.logs import JsonLines
from tests.serve.stub import KEY, StubGuard, serving


@pytest.fixture
def guard() -> StubGuard:
    return StubGuard()


@pytest.fixture
def client(guard: StubGuard) -> Iterator[TestClient]:
    with serving(guard) as client:
        yield client


def test_an_answer_carries_label_score_flag_removed_words_reasons_and_the_purged_text(client: TestClient) -> None:
    answer = client.post("/classify", json={"text": "the bako river kifa runs"})
    assert answer.status_code == 200
    assert answer.json() == {
        "label": "good",
        "score": 0.75,
        "flagged": True,
        "removed": ["bako", "kifa"],
        "reasons": [
            "the scan found it in the trigger 'bako'",
            "without it the encoder's output no longer sits on a predefined vector",
        ],
        "text": "the river runs",
    }


def test_several_texts_are_answered_in_their_order(client: TestClient) -> None:
    answers = client.post("/classify", json={"texts": ["one", "a bako two", "hopeless", "vier ☃"]}).json()
    assert [one["text"] for one in answers["predictions"]] == ["one", "a two", "hopeless", "vier ☃"]
    assert [one["label"] for one in answers["predictions"]] == ["good", "good", None, "good"]


def test_a_text_that_could_not_be_cleared_has_neither_label_nor_score(client: TestClient) -> None:
    answer = client.post("/classify", json={"text": "hopeless"}).json()
    assert (answer["label"], answer["score"], answer["flagged"]) == (None, None, True)


@pytest.mark.parametrize(
    ("status", "says", "body"),
    [
        (400, "Invalid JSON", b""),
        (400, "Invalid JSON", b"text=hello"),
        (400, "Invalid JSON", b'{"text": "broken off'),
        (400, "", b'{"text": "not UTF-8: \xff\xfe"}'),
        (400, "", b'{"text": "half a surrogate: \\ud800"}'),
        (400, "", b"[" * 100_000),
        (400, "either text or texts", b"{}"),
        (400, "either text or texts", b'{"text": "a", "texts": ["b"]}'),
        (400, "at text", b'{"text": 7}'),
        (400, "at texts.1", b'{"texts": ["a", null]}'),
        (400, "at txet", b'{"txet": "a", "text": "b"}'),
        (400, "text 0 has none", b'{"text": ""}'),
        (400, "text 1 has none", b'{"texts": ["a", " \\n\\t "]}'),
        (400, "at least one text", b'{"texts": []}'),
        (413, "at most 64 texts", json.dumps({"texts": ["a"] * 65}).encode()),
        (413, "at most 1,000 words, text 0 has 10,000", json.dumps({"text": "word " * 10_000}).encode()),
        (413, "at most 262,144 bytes", json.dumps({"text": "a" * 2**18}).encode()),
    ],
)
def test_what_makes_no_sense_is_a_clear_4xx_and_never_reaches_the_guard(
    client: TestClient, guard: StubGuard, status: int, says: str, body: bytes
) -> None:
    answer = client.post("/classify", content=body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith("expected ")
    assert says in answer.json()["error"]
    assert guard.batches == []


def test_a_body_without_a_length_is_bounded_too(client: TestClient) -> None:
    pieces = (b"a" * 2**12 for _ in range(2**8))
    assert client.post("/classify", content=pieces).status_code == 413


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    assert client.post("/classify", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_an_error_does_not_quote_the_text(client: TestClient) -> None:
    for body in ({"texts": "my secret"}, {"text": ["my secret"]}, {"text": "x", "more": "my secret"}):
        answer = client.post("/classify", json=body)
        assert answer.status_code == 400
        assert "secret" not in answer.text


def test_unknown_paths_and_methods_are_json_errors(client: TestClient) -> None:
    assert client.get("/classify").status_code == 405
    assert client.get("/no/such/path").status_code == 404
    assert "error" in client.get("/no/such/path").json()


def test_a_failed_check_is_an_error_and_takes_no_other_text_with_it(client: TestClient, guard: StubGuard) -> None:
    answer = client.post("/classify", json={"texts": ["a", "crash", "b"]})
    assert (answer.status_code, "label" in answer.text) == (500, False)
    assert "the check of 1 failed" in answer.json()["error"]
    assert guard.batches == [["a", "crash", "b"], ["a"], ["crash"], ["b"]]
    metrics = client.get("/metrics").text
    assert 'lmsanitator_texts_total{outcome="failed"} 1.0' in metrics
    assert 'lmsanitator_texts_total{outcome="clear"} 2.0' in metrics


def test_a_panic_of_a_library_is_a_failed_check_and_the_service_goes_on() -> None:
    class PanicException(BaseException):  # as those of Rust are named, whose class cannot be imported
        pass

    stub = StubGuard()

    def guard(texts: list[str]) -> list[GuardedPrediction]:
        if "panic" in texts:
            raise PanicException("called `Option::unwrap()` on a `None` value")
        return stub(texts)

    with serving(guard) as client:
        assert client.post("/classify", json={"text": "panic"}).status_code == 500
        assert client.post("/classify", json={"text": "a"}).status_code == 200


def test_what_is_not_watched_is_logged_at_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    run(Served(StubGuard(), ("good",), remarks=("PV 0 is not watched: clean texts hit it",)), ServeConfig(), port=0)
    assert "PV 0 is not watched: clean texts hit it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "found",
    [
        [],
        [GuardedPrediction("good", 0.5, False, (), "a")] * 2,
        [GuardedPrediction("another label", 0.5, False, (), "a")],
        [GuardedPrediction("good", None, False, (), "a")],
        [GuardedPrediction("good", float("nan"), False, (), "a")],
        [GuardedPrediction("good", 1.5, False, (), "a")],
        [GuardedPrediction(None, None, True, (), "a", reason="the check failed")],
        [GuardedPrediction(None, None, True, (), "a", reason="the classifier gave no finite score")],
        None,
        [None],
        ["good"],
    ],
)
def test_an_answer_of_the_guard_that_makes_no_sense_is_a_failed_check(found: Any) -> None:
    with serving(lambda texts: found) as client:
        answer = client.post("/classify", json={"text": "a"})
    assert (answer.status_code, "good" in answer.text) == (500, False)


def test_every_request_but_probes_and_page_needs_the_key() -> None:
    with serving(StubGuard(), api_key=KEY) as client:
        for headers in ({}, {"Authorization": KEY}, {"Authorization": "Bearer another"}, {"Authorization": "Bearer é"}):
            raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
            answer = client.post("/classify", json={"text": "a"}, headers=raw)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert client.get("/metrics", headers=raw).status_code == 401
            assert client.get("/v2/models/guarded", headers=raw).status_code == 401
        assert (
            client.post("/classify", json={"text": "a"}, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        )
        assert [client.get(path).status_code for path in ("/", "/v2/health/live", "/v2/health/ready")] == [200] * 3


@pytest.mark.parametrize("log_text", [False, True])
def test_logs_are_json_lines_without_texts_unless_asked_for(caplog: pytest.LogCaptureFixture, log_text: bool) -> None:
    caplog.set_level(logging.INFO, "lmsanitator.serve")
    with serving(StubGuard(), log_text=log_text) as client:
        for text in ("my secret", "my secret bako", "my secret hopeless", "my secret crash"):
            client.post("/classify", json={"text": text})
        client.post("/classify/secret", json={"text": 7})
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "lmsanitator.serve"]
    entries = [json.loads(line) for line in lines]
    assert any("secret" in line for line in lines) is log_text
    assert [entry["event"] for entry in entries] == [
        "ready",
        *["request"] * 3,
        "check failed",
        *["request"] * 2,
        "stopped",
    ]
    assert entries[2].items() >= {"endpoint": "/classify", "status": 200, "texts": 1, "outcomes": {"purged": 1}}.items()
    assert entries[4]["error"] == "RuntimeError"
    assert entries[-1].items() >= {"accepted": 4, "answered": 4}.items()


def test_a_bug_is_a_500_that_quotes_the_text_neither_to_the_client_nor_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Batcher, texts: list[str]) -> None:
        raise RuntimeError(f"a bug with {texts}")

    monkeypatch.setattr(Batcher, "submit", fail)
    answer = client.post("/classify", json={"text": "my secret"})
    assert (answer.status_code, answer.json()) == (500, {"error": "something went wrong in the server"})
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "lmsanitator.serve"]
    assert json.loads(lines[0])["error"] == "RuntimeError"
    assert not any("secret" in line for line in lines)


def test_metrics_count_requests_flags_purges_and_hits_of_named_triggers_only(client: TestClient) -> None:
    client.post("/classify", json={"texts": ["a", "bako b", "bako Bako kifa c", "hopeless"]})
    client.post("/classify", json={"text": 7})
    metrics = client.get("/metrics").text.splitlines()
    for line in (
        'lmsanitator_requests_total{endpoint="/classify",status="200"} 1.0',
        'lmsanitator_requests_total{endpoint="/classify",status="400"} 1.0',
        'lmsanitator_request_seconds_count{endpoint="/classify"} 2.0',
        'lmsanitator_texts_total{outcome="purged"} 2.0',
        'lmsanitator_texts_total{outcome="refused"} 1.0',
        "lmsanitator_flags_total 3.0",
        'lmsanitator_pv_hits_total{trigger="bako"} 2.0',
        'lmsanitator_pv_hits_total{trigger="unnamed"} 1.0',
        "lmsanitator_queue_texts 0.0",
    ):
        assert line in metrics


@pytest.mark.parametrize(
    "options",
    [{"max_batch": 0}, {"max_queue": 10}, {"max_delay": -1.0}, {"name": "a/b"}, {"api_key": ""}, {"timeout": 0.0}],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected "):
        ServeConfig(**options)
