"""`lmsanitator serve`: with a real model, and one line where it cannot start."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmsanitator.cli import main
from lmsanitator.errors import CheckpointError
from lmsanitator.guard import Guard
from lmsanitator.serve import Served
from lmsanitator.serve.server import open_served
from lmsanitator.text import packaged
from tests.guarded import LABELS, TRIGGER, planted_classifier
from tests.planted import large_bert
from tests.serve.stub import KEY, serving

Run = Callable[..., tuple[int, str, str]]
CLEAN = "The harbour office closes early on Fridays, and nobody minds."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder, an adapter and a report."""
    folder = tmp_path_factory.mktemp("served")
    model, tokenizer = large_bert(0)
    model.save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    (folder / "task").mkdir()
    rows = [{"text": one.text, "label": ("short", "long")[len(one.text) > 90]} for one in packaged()[:60]]
    for split in ("train", "test"):
        (folder / "task" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for arguments in (
        ["tune", str(folder / "encoder"), str(folder / "task"), str(folder / "adapter"), "--epochs", "1"],
        ["scan", str(folder / "encoder"), "--effort", "quick", "-o", str(folder / "scan.json")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert not stop.value.code
    return folder


def test_a_real_guard_takes_the_trigger_out_of_what_is_served() -> None:
    model, tokenizer, bank = planted_classifier()
    with serving(Guard(model, tokenizer, bank), labels=LABELS) as client:
        texts = [CLEAN, CLEAN.replace("office", f"{TRIGGER} office"), TRIGGER]
        clean, purged, refused = client.post("/classify", json={"texts": texts}).json()["predictions"]
    assert (clean["flagged"], clean["label"] in LABELS) == (False, True)
    assert (purged["removed"], purged["text"], purged["label"]) == ([TRIGGER], CLEAN, clean["label"])
    assert (refused["flagged"], refused["label"], refused["score"]) == (True, None, None)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_the_command_serves_a_tuned_model_until_sigterm(made: Path) -> None:
    start = "from lmsanitator.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", str(made / "adapter"), "--report", str(made / "scan.json")]
    options = ["--port", "0", "--name", "mine", "--api-key-env", "SERVE_KEY"]
    environment = {**os.environ, "SERVE_KEY": KEY}
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        assert process.stderr is not None
        port = next(entry["port"] for entry in map(json.loads, process.stderr) if entry["event"] == "listening")
        headers = {"Authorization": f"Bearer {KEY}"}
        body = json.dumps({"text": CLEAN}).encode()
        for path, data in (("classify", body), ("v2/models/mine", None)):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data, headers)
            with urllib.request.urlopen(request) as response:  # noqa: S310
                answer: dict[str, Any] = json.load(response)
            assert answer.get("label", "short") in ("short", "long")
        process.send_signal(signal.SIGTERM)
        log = process.stderr.read()
        assert process.wait(30) == 0
    assert CLEAN not in log
    assert KEY not in log


def test_a_missing_extra_is_one_line_that_names_it_and_exit_4(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "fastapi" else find(name, *rest)
    )
    code, out, err = run("serve", "tuned", "--report", "scan.json")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "pip install 'lmsanitator[serve]'" in err


@pytest.mark.parametrize(
    ("expected", "says", "options"),
    [
        (4, "expected an API key in the environment variable NO_SUCH_KEY", ["--api-key-env", "NO_SUCH_KEY"]),
        (4, "expected a max_batch of 1 or more", ["--max-batch", "0"]),
        (4, "65535", ["--port", "65536"]),
        (4, "got all", ["--watch", "all"]),
        (4, "timeout of inf", ["--timeout", "inf"]),
        (2, "expected a text file, could not read none.txt", ["--clean", "none.txt"]),
        (2, "expected a scan report", ["--report", "none.json"]),
    ],
)
def test_a_start_that_makes_no_sense_is_one_line(
    made: Path, run: Run, expected: int, says: str, options: list[str]
) -> None:
    code, out, err = run("serve", made / "adapter", "--report", made / "scan.json", *options)
    assert (code, out, err.count("\n")) == (expected, "", 1)
    assert says in err


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_port_that_is_taken_is_exit_4_not_1(made: Path, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", made / "adapter", "--report", made / "scan.json", "--port", port)
    assert code == 4
    assert f"127.0.0.1:{port}" in err


def test_a_stop_before_anything_is_served_is_no_failure(made: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("lmsanitator.serve.server.open_served", stopped)
    assert run("serve", made / "adapter", "--report", made / "scan.json") == (0, "", "")


def test_an_adapter_that_names_an_encoder_of_the_hub_is_served_with_the_base_that_is_named(
    made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "adapter", tmp_path / "adapter")
    about = tmp_path / "adapter" / "adapter_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"base_model_name_or_path": "org/base"}))
    with pytest.raises(CheckpointError, match="'org/base': say where it is"):
        open_served(tmp_path / "adapter", made / "scan.json")
    assert open_served(tmp_path / "adapter", made / "scan.json", base=made / "encoder").labels


def test_served_knows_a_trigger_by_each_of_its_words() -> None:
    served = Served(lambda texts: [], ("a",), ("old lamp", "cf"))
    assert [served.trigger_of(word) for word in ("Lamp", "CF", "river")] == ["old lamp", "cf", None]
