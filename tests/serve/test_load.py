"""Under load: batches are shared, the queue is bounded and says so, nothing that was accepted is lost."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serve.running import running
from tests.serve.stub import StubGuard, serving


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.fixture
def guard() -> Iterator[StubGuard]:
    guard = StubGuard()
    yield guard
    guard.release.set()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(pool: ThreadPoolExecutor, client: TestClient, *texts: str) -> Future[Any]:
    return pool.submit(client.post, "/classify", json={"texts": texts})


def waiting(client: TestClient, number: int) -> Callable[[], bool]:
    return lambda: f"lmsanitator_queue_texts {number}.0" in client.get("/metrics").text


def test_requests_that_wait_share_a_batch_up_to_its_size(guard: StubGuard, pool: ThreadPoolExecutor) -> None:
    with serving(guard, max_batch=4) as client:
        first = ask(pool, client, "slow")
        until(lambda: len(guard.batches) == 1)
        others = [ask(pool, client, f"text {number}") for number in range(6)]
        until(waiting(client, 6))
        guard.release.set()
        for number, answer in enumerate(others):
            assert answer.result().json()["predictions"][0]["text"] == f"text {number}"
        assert first.result().status_code == 200
        assert [len(batch) for batch in guard.batches] == [1, 4, 2]


def test_a_text_waits_for_company_no_longer_than_the_delay(guard: StubGuard, pool: ThreadPoolExecutor) -> None:
    with serving(guard, max_delay=0.3) as client:
        started = time.monotonic()
        answers = [ask(pool, client, "a"), ask(pool, client, "b")]
        assert [answer.result().status_code for answer in answers] == [200, 200]
        assert 0.3 <= time.monotonic() - started < 5
        assert sorted(map(len, guard.batches)) == [2]


def test_a_full_queue_is_503_with_retry_after_and_what_was_accepted_is_answered(
    guard: StubGuard, pool: ThreadPoolExecutor
) -> None:
    with serving(guard, max_queue=4, max_texts=4, max_batch=1) as client:
        accepted = [ask(pool, client, "slow")]
        until(lambda: len(guard.batches) == 1)
        accepted.append(ask(pool, client, "a", "b", "c"))
        until(waiting(client, 3))
        for texts in (["d", "e"], ["d", "e", "f", "g"]):
            refused = client.post("/classify", json={"texts": texts})
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert "error" in refused.json()
        accepted.append(ask(pool, client, "d"))
        until(waiting(client, 4))
        guard.release.set()
        assert [answer.result().status_code for answer in accepted] == [200, 200, 200]
        assert client.post("/classify", json={"texts": ["d", "e"]}).status_code == 200


def test_too_many_open_requests_are_503_but_probes_are_answered(guard: StubGuard, pool: ThreadPoolExecutor) -> None:
    with serving(guard, max_requests=1) as client:
        first = ask(pool, client, "slow")
        until(lambda: len(guard.batches) == 1)
        refused = client.post("/classify", json={"text": "a"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert client.get("/v2/health/ready").status_code == 200
        guard.release.set()
        assert first.result().status_code == 200


def test_an_answer_that_takes_too_long_is_504_and_leaves_the_queue(guard: StubGuard, pool: ThreadPoolExecutor) -> None:
    with serving(guard, timeout=0.3, max_batch=1) as client:
        late = [ask(pool, client, "slow")]
        until(lambda: guard.batches == [["slow"]])  # else the other may be taken first
        late.append(ask(pool, client, "a", "b"))
        assert [answer.result().status_code for answer in late] == [504, 504]
        until(waiting(client, 0))
        until(lambda: client.get("/v2/health/ready").status_code == 503)
        assert client.get("/v2/health/live").status_code == 200
        guard.release.set()
        until(lambda: client.get("/v2/health/ready").status_code == 200)
        assert client.post("/classify", json={"text": "c"}).status_code == 200
        assert guard.batches == [["slow"], ["c"]]


def test_a_body_that_does_not_come_is_408() -> None:
    with running(StubGuard(), timeout=0.3) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_sigterm_under_load_loses_no_accepted_request() -> None:
    command = [sys.executable, "-m", "tests.serve.running", "0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stderr is not None
        port = next(entry["port"] for entry in map(json.loads, process.stderr) if entry["event"] == "listening")
        log: list[dict[str, Any]] = []
        reading = threading.Thread(target=lambda lines: log.extend(map(json.loads, lines)), args=(process.stderr,))
        reading.start()
        statuses: list[int] = []
        with ThreadPoolExecutor(24) as pool:
            clients = [pool.submit(ask_until_closed, port, statuses) for _ in range(24)]
            until(lambda: len(statuses) > 24)
            process.send_signal(signal.SIGTERM)
            for client in clients:
                client.result(30)
        assert process.wait(30) == 0
        reading.join()
    stopped = next(entry for entry in log if entry["event"] == "stopped")
    assert set(statuses) == {200}
    assert stopped["accepted"] == stopped["answered"] == len(statuses)
    shutting_down = next(number for number, entry in enumerate(log) if entry["event"] == "Shutting down")
    assert [entry["event"] for entry in log[shutting_down:]].count("request") >= 8, "no request was open at SIGTERM"


def ask_until_closed(port: int, statuses: list[int]) -> None:
    """Post over one connection after the other until there is none to be had."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        while True:
            try:
                connection.request("POST", "/classify", body=b'{"text": "a bako b"}')
                answer = connection.getresponse()
                content = answer.read()
            except (ConnectionError, http.client.RemoteDisconnected):
                return  # refused or closed before anything was accepted
            statuses.append(answer.status)
            assert json.loads(content)["removed"] == ["bako"]
