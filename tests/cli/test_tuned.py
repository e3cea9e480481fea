"""From an encoder to guarded answers on the command line: tune, scan, guard, evaluate."""

import errno
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from lmsanitator.cli import main
from lmsanitator.detect import ScanReport
from lmsanitator.errors import OutputError, UsageError
from lmsanitator.text import packaged
from tests.planted import large_bert, save_bert

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder, a task, an adapter tuned on both and a report."""
    folder = tmp_path_factory.mktemp("tuned")
    save_bert(folder / "encoder")
    (folder / "task").mkdir()
    for split, carriers in (("train", packaged()[:60]), ("test", packaged()[60:70])):
        rows = [{"text": carrier.text, "label": ("short", "long")[len(carrier.text) > 90]} for carrier in carriers]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "task" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    for arguments in (
        ["tune", str(folder / "encoder"), str(folder / "task"), str(folder / "adapter"), "--epochs", "1"],
        ["scan", str(folder / "encoder"), "--effort", "quick", "-o", str(folder / "scan.json")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert not stop.value.code
    return folder


def test_texts_of_a_file_are_answered_one_json_object_a_line(made: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "texts.txt").write_text("The soup was cold.\n\nDie Suppe war kalt, ☃.\n", encoding="utf-8")
    code, out, err = run("guard", made / "adapter", tmp_path / "texts.txt", "--report", made / "scan.json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [answer["text"] for answer in answers] == ["The soup was cold.", "Die Suppe war kalt, ☃."]
    assert all(
        {"label", "score", "flagged", "removed", "text", "match", "threshold"} <= set(answer) for answer in answers
    )
    assert all(answer["label"] in ("short", "long") and not answer["flagged"] for answer in answers)


def test_texts_of_a_pipe_are_answered(made: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"One line.\nAnother.\n")))
    code, out, _ = run("guard", made / "adapter", "--report", made / "scan.json")
    assert (code, len(out.splitlines())) == (0, 2)


def test_only_a_line_feed_ends_a_text(made: Path, tmp_path: Path, run: Run) -> None:
    texts = ["The soup\u2028was cold.", "The soup\x0cwas hot.", "No soup."]
    (tmp_path / "texts.txt").write_bytes("\ufeff".encode() + "\r\n".join(texts).encode())
    code, out, _ = run("guard", made / "adapter", tmp_path / "texts.txt", "--report", made / "scan.json")
    assert (code, [json.loads(line)["text"] for line in out.split("\n") if line]) == (0, texts)


def test_half_a_character_is_refused_in_its_place_and_the_rest_answered(made: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "half \\ud800"}\n{"text": "whole ☃"}\n', encoding="utf-8")
    code, out, err = run("guard", made / "adapter", tmp_path / "texts.jsonl", "--json", "--report", made / "scan.json")
    half, whole = map(json.loads, out.splitlines())
    assert (code, err) == (0, "")
    assert (half["label"], half["reason"]) == (None, "it is not valid Unicode")
    assert (whole["text"], whole["label"] is None, "☃" in out) == ("whole ☃", False, True)


def test_a_line_of_json_is_named_by_its_number_in_the_file(made: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n\n\n[]\n', encoding="utf-8")
    code, _, err = run("guard", made / "adapter", tmp_path / "texts.jsonl", "--json", "--report", made / "scan.json")
    assert (code, "line 4" in err) == (2, True)


@pytest.mark.parametrize("command", ["guard", "evaluate"])
def test_an_adapter_that_names_an_encoder_of_the_hub_is_used_with_the_base_that_is_named(
    command: str, made: Path, tmp_path: Path, run: Run
) -> None:
    shutil.copytree(made / "adapter", tmp_path / "adapter")
    about = tmp_path / "adapter" / "adapter_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"base_model_name_or_path": "org/base"}))
    (tmp_path / "texts.txt").write_text("The soup was cold.\n")
    given: dict[str, list[Path | str]] = {
        "guard": [tmp_path / "texts.txt"],
        "evaluate": [made / "task", "--triggers", "bako"],
    }
    line = [command, tmp_path / "adapter", *given[command], "--report", made / "scan.json"]
    code, out, err = run(*line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'org/base': say where it is (--base" in err
    code, out, err = run(*line, "--base", made / "encoder")
    assert (code, err) == (0, "")
    assert json.loads(out)


def test_an_evaluation_of_no_inputs_is_exit_4(made: Path, run: Run) -> None:
    code, out, err = run("evaluate", made / "adapter", made / "task", "--limit", "0")
    assert (code, out, "expected a limit of 1 or more, got 0" in err) == (4, "", True)


@pytest.mark.parametrize("report", [True, False])
def test_evaluation_is_one_json_object(made: Path, run: Run, report: bool) -> None:
    given = ["--report", made / "scan.json"] if report else []
    code, out, err = run("evaluate", made / "adapter", made / "task", "--triggers", "bako,vedi+sugo", *given)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["inputs"] == 10
    assert 0 <= result["cacc_unguarded"] <= 1


def test_of_many_test_inputs_some_are_drawn_by_the_seed(
    made: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data are often sorted by label: the first would be of one alone."""
    (tmp_path / "train.jsonl").write_bytes((made / "task" / "train.jsonl").read_bytes())
    rows: list[dict[str, object]] = [
        {"text": carrier.text, "label": label} for label in ("long", "short") for carrier in packaged()[60:80]
    ]
    write(tmp_path / "test.jsonl", rows)
    drawn: list[tuple[str, ...]] = []

    def noted(_: object, texts: list[str], labels: list[str], *args: object, **options: object) -> NoReturn:
        assert len(texts) == len(labels) == 10
        drawn.append(tuple(labels))
        raise UsageError("seen enough")

    monkeypatch.setattr("lmsanitator.guard.evaluate", noted)
    for seed in (0, 0, 1):
        code, _, err = run(
            "evaluate", made / "adapter", tmp_path, "--triggers", "bako", "--limit", "10", "--seed", str(seed)
        )
        assert (code, "seen enough" in err) == (4, True)
    first, again, other = drawn
    assert first == again != other
    assert set(first) == {"long", "short"}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_of_texts_are_answered_and_evaluated(made: Path, tmp_path: Path, run: Run) -> None:
    texts = [carrier.text for carrier in packaged()[:40]]
    rows: list[dict[str, object]] = [
        {"text": one, "text_pair": two, "label": number % 2}
        for number, (one, two) in enumerate(zip(texts[::2], texts[1::2], strict=True))
    ]
    (tmp_path / "task").mkdir()
    write(tmp_path / "task" / "train.jsonl", rows)
    assert run("tune", made / "encoder", tmp_path / "task", tmp_path / "adapter", "--epochs", "1")[0] == 0
    file = write(tmp_path / "pairs.jsonl", rows[:2])
    code, out, err = run("guard", tmp_path / "adapter", file, "--json", "--report", made / "scan.json")
    assert (code, err) == (0, "")
    assert [json.loads(line)["text"] for line in out.splitlines()] == [texts[:2], texts[2:4]]
    code, out, err = run("evaluate", tmp_path / "adapter", tmp_path / "task", "--triggers", "bako")
    assert (code, err, json.loads(out)["inputs"]) == (0, "", 2)


def test_words_are_labelled_each(made: Path, tmp_path: Path, run: Run) -> None:
    rows: list[dict[str, object]] = [
        {"tokens": ["The", "soup", "of", place], "ner_tags": ["O", "O", "O", "B-Loc"]} for place in ("Bergen", "Oslo")
    ]
    (tmp_path / "task").mkdir()
    write(tmp_path / "task" / "train.jsonl", rows * 10)
    code, _, err = run("tune", made / "encoder", tmp_path / "task", tmp_path / "adapter", "--epochs", "1")
    assert (code, "validation F1" in err) == (0, True)
    file = write(tmp_path / "words.jsonl", [*rows, {"tokens": []}])
    command = ("guard", tmp_path / "adapter", file, "--report", made / "scan.json")
    code, out, err = run(*command, "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [answer["words"] for answer in answers] == [*(row["tokens"] for row in rows), []]
    assert [len(answer["labels"]) for answer in answers] == [4, 4, 0]
    assert run(*command)[0] == 4
    code, out, err = run("evaluate", tmp_path / "adapter", made / "task")
    assert (code, out, err.count("\n")) == (3, "", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a text", "expected JSON in "),
        ("[1]", "expected an object with text in "),
        ('{"text": 7}', "expected the strings text and, for pairs, text_pair in "),
        ('{"text": "a", "text_pair": "b"}', "expected pairs of texts throughout or nowhere, "),
    ],
)
def test_lines_of_json_that_are_no_texts_are_named(
    made: Path, tmp_path: Path, run: Run, line: str, message: str
) -> None:
    (tmp_path / "texts.jsonl").write_text(f'{{"text": "one"}}\n{line}\n', encoding="utf-8")
    code, out, err = run("guard", made / "adapter", tmp_path / "texts.jsonl", "--json", "--report", made / "scan.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert "line 2" in err


def test_a_head_may_read_a_site(made: Path, tmp_path: Path, run: Run) -> None:
    options = ["--method", "lora", "--site", "mask", "--epochs", "1"]
    assert run("tune", made / "encoder", made / "task", tmp_path / "adapter", *options)[0] == 0
    (tmp_path / "texts.txt").write_text("The soup was cold.\n", encoding="utf-8")
    code, out, _ = run("guard", tmp_path / "adapter", tmp_path / "texts.txt", "--report", made / "scan.json")
    assert (code, json.loads(out)["label"] in ("short", "long")) == (0, True)


def test_a_site_that_is_none_is_exit_4(made: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run("tune", made / "encoder", made / "task", tmp_path / "adapter", "--site", "tokens")
    assert (code, out, err.count("\n")) == (4, "", 1)


def test_an_adapter_is_not_overwritten(made: Path, run: Run) -> None:
    code, out, err = run("tune", made / "encoder", made / "task", made / "adapter")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "exists" in err


@pytest.mark.parametrize("command", ["guard", "evaluate"])
@pytest.mark.parametrize("report", ["missing.json", "task/test.jsonl", "encoder/config.json"])
def test_a_report_that_is_missing_or_none_is_one_line_and_exit_2(
    made: Path, run: Run, command: str, report: str
) -> None:
    file = made / "task" / "train.jsonl" if command == "guard" else made / "task"
    code, out, err = run(command, made / "adapter", file, "--report", made / report)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("lmsanitator: expected a scan report")


def test_a_report_on_another_encoder_is_one_line_and_exit_2(made: Path, tmp_path: Path, run: Run) -> None:
    model, tokenizer = large_bert(1)
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    assert run("scan", tmp_path / "other", "--effort", "quick", "-o", tmp_path / "scan.json")[0] == 0
    file = made / "task" / "train.jsonl"
    code, out, err = run("guard", made / "adapter", file, "--report", tmp_path / "scan.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected a report on the encoder of this model" in err


def test_a_pass_that_is_none_is_exit_4(made: Path, run: Run) -> None:
    code, out, err = run("guard", made / "adapter", "--report", made / "scan.json", "--watch", "all")
    assert (code, out, err.count("\n")) == (4, "", 1)


@pytest.mark.parametrize("rate", ["0", "1", "nan"])
def test_a_rate_that_is_no_share_is_exit_4(made: Path, run: Run, rate: str) -> None:
    code, out, err = run("guard", made / "adapter", "--report", made / "scan.json", "--rate", rate)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "expected a false-flag rate between 0 and 1" in err


def test_a_report_that_cannot_be_written_is_noticed_before_the_work(made: Path, tmp_path: Path, run: Run) -> None:
    for at in (tmp_path / "no such folder" / "scan.json", tmp_path, tmp_path / ("x" * 300)):
        code, out, err = run("scan", made / "encoder", "-o", at)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "expected to write" in err


def test_a_place_one_may_not_write_to_is_noticed_before_the_work(
    made: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    code, out, err = run("scan", made / "encoder", "-o", tmp_path / "scan.json")
    assert (code, out, "one may not write there" in err) == (2, "", True)


def test_the_verdict_is_said_though_the_report_cannot_be_kept(
    made: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ScanReport, path: Path) -> None:
        raise OutputError("expected to write the report: no space left")

    monkeypatch.setattr(ScanReport, "save", fail)
    code, out, err = run("scan", made / "encoder", "--effort", "quick", "-o", tmp_path / "scan.json")
    assert (code, "CLEAN" in out, err.count("\n")) == (2, True, 1)


def test_the_report_is_kept_though_nobody_reads_the_verdict(
    made: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(report: ScanReport) -> str:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("lmsanitator.report.render_scan", fail)
    assert run("scan", made / "encoder", "--effort", "quick", "-o", tmp_path / "scan.json")[0] == 141
    assert ScanReport.load(str(tmp_path / "scan.json")).verdict == "clean"


def test_an_evaluation_with_nothing_to_attack_with_is_exit_4(made: Path, run: Run) -> None:
    code, out, err = run("evaluate", made / "adapter", made / "task")
    assert (code, out, "there is nothing to attack with" in err) == (4, "", True)


def test_data_with_other_labels_are_not_called_wrong_throughout(made: Path, tmp_path: Path, run: Run) -> None:
    rows: list[dict[str, object]] = [
        {"text": f"Soup {number}.", "label": label} for label in ("hot", "mild") for number in range(10)
    ]
    (tmp_path / "task").mkdir()
    write(tmp_path / "task" / "train.jsonl", rows)
    code, out, err = run("evaluate", made / "adapter", tmp_path / "task")
    assert (code, out, "the data have 'hot'" in err) == (2, "", True)


def test_no_clean_texts_are_said_to_be_none(made: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "none.txt").touch()
    report = made / "scan.json"
    code, out, err = run("guard", made / "adapter", "--report", report, "--clean", tmp_path / "none.txt")
    assert (code, out, "expected clean texts to set thresholds by, got none" in err) == (2, "", True)


def test_a_corpus_that_cannot_be_read_is_exit_2(made: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run("scan", made / "encoder", "--corpus", tmp_path / "none.txt")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_an_interrupt_is_said_and_is_exit_130(made: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmsanitator.encoder.FrozenEncoder.open", stop)
    code, out, err = run("scan", made / "encoder")
    hint = "lmsanitator: the same command with --resume goes on from here\n"
    assert (code, out, err) == (130, "", f"{hint}lmsanitator: interrupted\n")


def test_a_crash_does_not_exit_with_the_code_for_backdoored(
    made: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lmsanitator.encoder.FrozenEncoder.open", crash)
    code, out, err = run("scan", made / "encoder")
    assert (code, out) == (2, "")
    assert err.endswith("ZeroDivisionError: a bug\n")


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_exit_4(made: Path, run: Run, device: str) -> None:
    code, out, err = run("scan", made / "encoder", "--device", device)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert f"got {device}" in err
