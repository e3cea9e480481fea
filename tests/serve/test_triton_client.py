"""The HTTP client of Triton calls the service as it calls Triton."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.serve.running import running
from tests.serve.stub import KEY, StubGuard

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http] (the dev extra)")
utils = pytest.importorskip("tritonclient.utils")

TEXTS = ["a bako b", "hopeless", "Die Suppe ☃ war kalt."]
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def client() -> Iterator[Any]:
    with running(StubGuard(), api_key=KEY) as port, triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield client


def infer(client: Any, texts: list[str], binary: bool = True, **options: Any) -> Any:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=np.object_), binary_data=binary)
    return client.infer("guarded", [tensor], headers=dict(HEADERS), **options)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("guarded", headers=dict(HEADERS))
    assert not client.is_model_ready("other", headers=dict(HEADERS))
    assert client.get_server_metadata(headers=dict(HEADERS))["name"] == "lmsanitator"
    assert client.get_model_metadata("guarded", headers=dict(HEADERS))["inputs"][0]["datatype"] == "BYTES"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("outputs", ["all", "binary", "json"])
def test_inference_in_every_combination_of_binary_and_json(client: Any, binary: bool, outputs: str) -> None:
    names = ("label", "score", "refused", "flagged", "removed", "text")
    wanted = [triton.InferRequestedOutput(name, binary_data=outputs == "binary") for name in names]
    result = infer(client, TEXTS, binary, outputs=None if outputs == "all" else wanted, request_id="7")

    def texts(name: str) -> list[str]:
        return [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy(name)]

    assert result.get_response()["id"] == "7"
    assert texts("label") == ["good", "", "good"]
    assert result.as_numpy("score").tolist() == [0.75, 0.0, 0.75]
    assert result.as_numpy("refused").tolist() == [False, True, False]
    assert result.as_numpy("flagged").tolist() == [True, True, False]
    assert [json.loads(one) for one in texts("removed")] == [["bako"], [], []]
    assert texts("text") == ["a b", "hopeless", "Die Suppe ☃ war kalt."]


def test_errors_reach_the_caller_as_the_clients_own(client: Any) -> None:
    for texts, says in ((["crash"], "check of 1 failed"), (["word " * 10_000], "at most 1,000 words")):
        with pytest.raises(utils.InferenceServerException, match=says):
            infer(client, texts)
    with pytest.raises(utils.InferenceServerException, match="compressed"):
        infer(client, ["a"], request_compression_algorithm="gzip")
