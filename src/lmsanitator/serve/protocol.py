"""The Open Inference Protocol, version 2, over HTTP: tensors in JSON or, with the binary data extension, after it.

A request has one input, `text` (BYTES, [n] or [n, 1]). The outputs have its shape: `label` (BYTES, empty where there is
none), `score` (FP32, 0 where there is no label), `refused` and `flagged` (BOOL), `removed` (BYTES, a list of words in
JSON) and `text` (BYTES, what was classified).

Specification: github.com/kserve/open-inference-protocol (REST); the extension is described in Triton's documentation
(protocol/extension_binary_data): the header Inference-Header-Content-Length says where the JSON ends and the tensors
begin, a BYTES element is its length as four little-endian bytes and then itself.
"""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from lmsanitator.guard import GuardedPrediction
from lmsanitator.serve.errors import RequestError, malformed

INPUT = "text"
OUTPUTS: dict[str, tuple[str, Callable[[GuardedPrediction], Any]]] = {
    "label": ("BYTES", lambda one: one.label or ""),
    "score": ("FP32", lambda one: one.score if one.label is not None else 0.0),
    "refused": ("BOOL", lambda one: one.label is None),
    "flagged": ("BOOL", lambda one: one.flagged),
    "removed": ("BYTES", lambda one: json.dumps(one.removed, ensure_ascii=False)),
    "text": ("BYTES", lambda one: one.text),
}
"""Of each output its data type and its value."""
LENGTH_HEADER = "Inference-Header-Content-Length"
_UNSUPPORTED = ("shared_memory_region", "classification")


class InputTensor(BaseModel):
    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class OutputTensor(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class Inference(BaseModel):
    """A request without its binary part."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(max_length=8)
    outputs: list[OutputTensor] = Field(default=[], max_length=64)

    @property
    def shape(self) -> list[int]:
        return self.inputs[0].shape


def parse(body: bytes, header_length: str | None) -> tuple[Inference, list[str]]:
    """The request and its texts.

    Args:
        header_length: the value of Inference-Header-Content-Length, where the body has a binary part.

    Raises:
        RequestError: 400.
    """
    given = str(len(body)) if header_length is None else header_length
    end = int(given) if given.isdecimal() and len(given) < 20 else -1  # Python refuses to read very long numbers
    if not 0 <= end <= len(body):
        raise RequestError(400, f"expected a {LENGTH_HEADER} of at most the {len(body)} bytes of the body")
    try:
        request = Inference.model_validate_json(body[:end])
    except ValidationError as error:
        raise malformed(error) from error
    tensor = _only_input(request)
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise RequestError(400, f"expected outputs of {', '.join(OUTPUTS)}; got {output.name[:40]!r}")
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        texts = [_decode(one) for one in _flat(tensor.data)]
    elif type(size) is not int or size != len(body) - end:
        raise RequestError(400, f"expected the binary_data_size to be the {len(body) - end} bytes after the JSON")
    else:
        texts = _unpack(body[end:])
    rows = tensor.shape[0]
    if len(texts) != rows:
        raise RequestError(400, f"expected {rows} texts as the shape of the input says, got {len(texts)}")
    return request, texts


def response(request: Inference, predictions: Sequence[GuardedPrediction], model: str) -> tuple[bytes, dict[str, str]]:
    """The body of the answer and its headers."""
    binary_by_default = request.parameters.get("binary_data_output") is True
    wanted = request.outputs or [OutputTensor(name=name) for name in OUTPUTS]
    outputs: list[dict[str, Any]] = []
    tail = b""
    for output in wanted:
        datatype, value = OUTPUTS[output.name]
        values = [value(one) for one in predictions]
        entry: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": request.shape}
        if output.parameters.get("binary_data", binary_by_default) is True:
            packed = _pack(datatype, values)
            entry["parameters"] = {"binary_data_size": len(packed)}
            tail += packed
        else:
            entry["data"] = values
        outputs.append(entry)
    content: dict[str, Any] = {"model_name": model, "outputs": outputs}
    if request.id is not None:
        content["id"] = request.id
    head = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    if not any("parameters" in entry for entry in outputs):
        return head, {"Content-Type": "application/json"}
    return head + tail, {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(head))}


def metadata(model: str) -> dict[str, Any]:
    """What `GET /v2/models/{model}` says."""
    outputs = [{"name": name, "datatype": datatype, "shape": [-1]} for name, (datatype, _) in OUTPUTS.items()]
    inputs = [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]
    return {"name": model, "platform": "lmsanitator_guard", "inputs": inputs, "outputs": outputs}


def _only_input(request: Inference) -> InputTensor:
    names = [tensor.name[:40] for tensor in request.inputs]
    if names != [INPUT]:
        raise RequestError(400, f"expected one input, {INPUT}; got {names or 'none'}")
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        raise RequestError(400, f"expected the datatype BYTES, got {tensor.datatype[:40]!r}")
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] < 0:
        raise RequestError(400, f"expected the shape [n] or [n, 1], got {tensor.shape}")
    asked = {*tensor.parameters, *(name for output in request.outputs for name in output.parameters)}
    if found := asked.intersection(_UNSUPPORTED):
        raise RequestError(400, f"expected none of the extensions {', '.join(sorted(found))}: they are not supported")
    return tensor


def _flat(data: list[Any] | None) -> list[Any]:
    """Tensor data may be nested as its shape is, or flat."""
    if data is None:
        raise RequestError(400, "expected the input's data in JSON or a binary_data_size, got neither")
    return [one for part in data for one in (part if isinstance(part, list) else [part])]


def _decode(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise RequestError(400, f"expected texts in UTF-8, byte {error.start} of one is not") from error
    if isinstance(value, str):
        return value
    raise RequestError(400, f"expected texts, got a {type(value).__name__}")


def _unpack(raw: bytes) -> list[str]:
    """Raises RequestError where the lengths and the bytes do not go together."""
    texts: list[str] = []
    at = 0
    while at < len(raw):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise RequestError(400, f"expected a length and so many bytes for each text, text {len(texts)} breaks off")
        texts.append(_decode(raw[start:at]))
    return texts


def _pack(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "FP32":
        return struct.pack(f"<{len(values)}f", *values)
    if datatype == "BOOL":
        return bytes(values)
    encoded = [value.encode() for value in values]
    return b"".join(len(one).to_bytes(4, "little") + one for one in encoded)
