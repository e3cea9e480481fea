"""Open Inference Protocol v2: JSON and the binary extension, by hand."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from lmsanitator.serve.protocol import LENGTH_HEADER
from tests.serve.stub import StubGuard, inference, serving

INFER = "/v2/models/guarded/infer"


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serving(StubGuard()) as client:
        yield client


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary(tail: bytes, shape: list[int], size: Any = None, header_length: Any = None, **more: Any) -> dict[str, Any]:
    """Arguments of a post whose texts follow the JSON."""
    parameters = {"binary_data_size": len(tail) if size is None else size}
    tensor = {"name": "text", "shape": shape, "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    length = len(head) if header_length is None else header_length
    return {"content": head + tail, "headers": {LENGTH_HEADER: str(length)}}


def test_health_and_metadata(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/guarded/ready").json() == {"name": "guarded", "ready": True}
    described = client.get("/v2/models/guarded").json()
    assert described["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in described["outputs"]] == ["label", "score", "refused", "flagged", "removed", "text"]


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/other/ready"])
def test_another_model_is_404(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.post("/v2/models/other/infer", json=inference("a")).status_code == 404


def test_json_tensors(client: TestClient) -> None:
    answer = client.post(INFER, json=inference("a bako b", "hopeless", id="42")).json()
    assert (answer["id"], answer["model_name"]) == ("42", "guarded")
    outputs = {one["name"]: (one["datatype"], one["shape"], one["data"]) for one in answer["outputs"]}
    assert outputs == {
        "label": ("BYTES", [2], ["good", ""]),
        "score": ("FP32", [2], [0.75, 0.0]),
        "refused": ("BOOL", [2], [False, True]),
        "flagged": ("BOOL", [2], [True, True]),
        "removed": ("BYTES", [2], ['["bako"]', "[]"]),
        "text": ("BYTES", [2], ["a b", "hopeless"]),
    }


def test_a_column_of_texts_and_chosen_outputs(client: TestClient) -> None:
    asked = inference("a", "b", outputs=[{"name": "label"}])
    asked["inputs"][0] |= {"shape": [2, 1], "data": [["a"], ["b"]]}
    (output,) = client.post(INFER, json=asked).json()["outputs"]
    assert output == {"name": "label", "datatype": "BYTES", "shape": [2, 1], "data": ["good", "good"]}


def test_binary_tensors_there_and_back(client: TestClient) -> None:
    tail = packed("a bako ☃".encode(), b"b")
    answer = client.post(INFER, **binary(tail, [2], parameters={"binary_data_output": True}))
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers[LENGTH_HEADER])
    head, rest = json.loads(answer.content[:end]), answer.content[end:]
    parts: dict[str, bytes] = {}
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        parts[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    assert parts["label"] == packed(b"good", b"good")
    assert struct.unpack("<2f", parts["score"]) == (0.75, 0.75)
    assert (parts["flagged"], parts["refused"]) == (b"\1\0", b"\0\0")
    assert parts["text"] == packed("a ☃".encode(), b"b")


def test_each_output_may_be_binary_or_not(client: TestClient) -> None:
    outputs = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    answer = client.post(INFER, json=inference("a", outputs=outputs))
    head = json.loads(answer.content[: int(answer.headers[LENGTH_HEADER])])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert head["outputs"][1]["data"] == ["good"]


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        ("expected 3 texts", {"shape": [3]}),
        ("expected the shape", {"shape": [1, 2]}),
        ("expected the shape", {"shape": []}),
        ("expected the shape", {"shape": [-2]}),
        ("expected 100", {"shape": [10**30]}),
        ("expected the datatype BYTES", {"datatype": "FP32"}),
        ("expected one input, text", {"name": "prompt"}),
        ("expected texts, got a int", {"data": [1, 2]}),
        ("neither", {"data": None}),
        ("not supported", {"parameters": {"shared_memory_region": "x"}}),
        ("expected words", {"data": ["a", ""]}),
    ],
)
def test_tensors_that_make_no_sense_are_400(client: TestClient, says: str, changes: dict[str, Any]) -> None:
    asked = inference("a", "b")
    asked["inputs"][0] |= changes
    answer = client.post(INFER, json=asked)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    "asked",
    [{}, {"inputs": []}, {"inputs": [1]}, {**inference("a"), "outputs": [{"name": "logits"}]}, [], "text", None],
)
def test_requests_that_are_none_are_400(client: TestClient, asked: Any) -> None:
    assert client.post(INFER, json=asked).status_code == 400


@pytest.mark.parametrize(
    ("says", "request_"),
    [
        ("breaks off", binary(b"\x09\0\0\0abc", [1])),
        ("breaks off", binary(b"\x09\0", [1])),
        ("breaks off", binary(b"\xff\xff\xff\xffabc", [1])),
        ("expected texts in UTF-8", binary(packed(b"\xff\xfe"), [1])),
        ("expected 1 texts", binary(packed(b"a", b"b"), [1])),
        ("expected words", binary(packed(b""), [1])),
        ("binary_data_size", binary(packed(b"a"), [1], size=4)),
        ("binary_data_size", binary(packed(b"a"), [1], size="5")),
        (LENGTH_HEADER, binary(packed(b"a"), [1], header_length=10**6)),
        (LENGTH_HEADER, binary(packed(b"a"), [1], header_length="-1")),
        (LENGTH_HEADER, binary(packed(b"a"), [1], header_length="9" * 5000)),
        ("Invalid JSON", binary(packed(b"a"), [1], header_length=10)),
    ],
)
def test_binary_parts_that_break_off_are_400(client: TestClient, says: str, request_: dict[str, Any]) -> None:
    answer = client.post(INFER, **request_)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_limits_hold_for_binary_texts_too(client: TestClient) -> None:
    assert client.post(INFER, **binary(packed(b"word " * 10_000), [1])).status_code == 413
    assert client.post(INFER, **binary(packed(*[b"a"] * 65), [65])).status_code == 413


def test_a_failed_check_has_no_outputs(client: TestClient) -> None:
    answer = client.post(INFER, json=inference("crash"))
    assert (answer.status_code, list(answer.json())) == (500, ["error"])
