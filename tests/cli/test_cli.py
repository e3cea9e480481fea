"""The command line: one line on stderr for bad input, the documented exit code, results on stdout alone."""

import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsanitator.attacks import ATTACKS, POR, AttackResult, Trigger, ground_truth
from lmsanitator.cli.demo import base_model
from lmsanitator.cli.demo.story import draw_triggers
from lmsanitator.detect import ScanReport
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CheckpointError
from lmsanitator.report.meaning import command
from lmsanitator.text import packaged
from tests.planted import open_bert, save_bert

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("clean") / "model")


class _Canary:
    """A pickle that would leave a file behind if it were opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(self.path),))  # type: ignore[return-value] # what a hostile pickle does


def broken(kind: str, checkpoint: Path, folder: Path) -> Path:
    """A copy of a checkpoint with one thing wrong."""
    at = folder / "model"
    at.mkdir()
    for file in checkpoint.iterdir():
        (at / file.name).write_bytes(file.read_bytes())
    weights = at / "model.safetensors"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif kind == "pickle":
        weights.unlink()
        (at / "pytorch_model.bin").write_bytes(pickle.dumps(_Canary(folder / "canary")))
    elif kind == "nan":
        tensors = load_file(weights)
        tensors["embeddings.word_embeddings.weight"][0] = torch.nan
        save_file(tensors, weights, {"format": "pt"})
    elif kind == "architecture":
        (at / "config.json").write_text('{"model_type": "no-such-thing"}', encoding="utf-8")
    return at


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "whole safetensors"),
        ("pickle", "can run code"),
        ("nan", "finite"),
        ("architecture", "no-such-thing"),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_exit_2(
    kind: str, says: str, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    model = broken(kind, checkpoint, tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = run("scan", str(model), "-o", str(tmp_path / "scan.json"))
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before  # the canary among them


def test_what_is_no_checkpoint_at_all_is_exit_2(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    for name in ("empty", "notes.txt", "missing"):
        code, out, err = run("scan", str(tmp_path / name))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "expected" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan"],
        ["scan", "x", "--no-such-option"],
        ["scan", "x", "--site", "nose"],
        ["scan", "x", "--effort", "heroic"],
        ["scan", "x", "--precision", "int1"],
        ["scan", "x", "--level", "2"],
        ["scan", "x", "--seed", "99999999999999999999999"],
        ["scan", "x", "--device", "meta"],
        ["scan", "x", "-o", "-"],
        ["no-such-command"],
        ["attack", "por"],
        ["tune", "x", "y", "z", "--method", "magic"],
    ],
)
def test_wrong_usage_is_exit_4(arguments: list[str], run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (4, "")
    assert err.startswith("lmsanitator: ")


def test_a_reference_is_compared_with_and_named(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    save_bert(tmp_path / "other", seed=1)
    options = ("--effort", "quick", "--site", "cls")
    code, out, err = run("scan", str(checkpoint), "--reference", str(tmp_path / "other"), *options, "--format", "json")
    assert (code, err) == (0, "")
    report = ScanReport.model_validate_json(out)
    assert report.reference is not None
    assert report.reference.source == str(tmp_path / "other") != report.model.source
    code, out, err = run("scan", str(checkpoint), "--reference", str(checkpoint), *options)
    assert (code, err) == (0, "")
    assert report.model.digest[:12] in out
    assert "weights are the same" in " ".join(out.split())


def test_a_wrong_reference_is_one_line_and_its_exit_code(
    checkpoint: Path, checkpoints: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    save_bert(tmp_path / "wide", hidden=64)
    for reference, expected, says in (
        (checkpoints["bert"], 4, "expected a reference with the vocabulary"),
        (tmp_path / "wide", 4, "expected a reference with 32 hidden dimensions"),
        (tmp_path / "missing", 2, "missing"),
    ):
        code, out, err = run("scan", str(checkpoint), "--reference", str(reference))
        assert (code, out, err.count("\n")) == (expected, "", 1)
        assert says in err


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """An adapter for a small BERT, which names an encoder on the hub."""
    about = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "target_modules": ["query"]}
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(about | {"r": 2, "lora_alpha": 2}))
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_"
    pair = {f"{name}A.weight": torch.full((2, 32), 0.1), f"{name}B.weight": torch.full((32, 2), 0.1)}
    save_file(pair, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_scanned_with_the_base_that_is_named(checkpoint: Path, lora: Path, run: Run) -> None:
    code, out, err = run("scan", lora)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'org/base'" in err
    assert "--base" in err
    options = ("--effort", "quick", "--site", "cls", "--format", "json")
    code, out, err = run("scan", lora, "--base", checkpoint, *options)
    assert (code, err) == (0, "")
    report = ScanReport.model_validate_json(out)
    assert report.model.source == str(lora)
    assert report.model.digest == FrozenEncoder.open(lora, base=checkpoint).digest
    assert report.model.digest != FrozenEncoder.open(checkpoint).digest
    again = command(report)
    assert again is not None
    code, out, err = run(*shlex.split(again)[1:], "--format", "json")
    assert (code, err) == (0, "")
    assert ScanReport.model_validate_json(out).model == report.model


def test_of_a_tuned_prompt_the_named_base_is_what_was_scanned(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "prompt"
    folder.mkdir()
    about = {"peft_type": "PREFIX_TUNING", "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    options = ("--effort", "quick", "--site", "cls", "--format", "json")
    code, out, err = run("scan", folder, "--base", checkpoint, *options)
    assert (code, err) == (0, "")
    again = command(ScanReport.model_validate_json(out))
    assert again is not None
    code, out, err = run(*shlex.split(again)[1:], "--format", "json")
    assert (code, err) == (0, "")
    assert ScanReport.model_validate_json(out).model.source == str(checkpoint)


def test_a_base_that_makes_no_sense_is_one_line_and_its_exit_code(checkpoint: Path, lora: Path, run: Run) -> None:
    for model, base, expected, says in (
        (checkpoint, checkpoint, 4, "an adapter's folder"),
        (lora, lora, 2, "config.json"),
        (lora, lora / "missing", 2, "missing"),
        (lora, "", 2, "config.json in .,"),
    ):
        code, out, err = run("scan", model, "--base", base)
        assert (code, out, err.count("\n")) == (expected, "", 1)
        assert says in err


def test_a_site_the_encoder_lacks_is_exit_3(checkpoints: dict[str, Path], run: Run) -> None:
    code, out, err = run("scan", str(checkpoints["gpt2"]), "--site", "cls")
    assert (code, out, err.count("\n")) == (3, "", 1)


def test_all_tokens_are_a_site_that_can_be_asked_for(checkpoint: Path, run: Run) -> None:
    code, out, err = run("scan", str(checkpoint), "--site", "tokens", "--effort", "quick", "--format", "json")
    assert (code, err) == (0, "")
    assert ScanReport.model_validate_json(out).coverage.sites == ["mean", "tokens"]


def test_a_clean_scan_is_exit_0_and_silent_on_stderr(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    at = tmp_path / "scan.json"
    code, out, err = run("scan", str(checkpoint), "--effort", "quick", "--format", "json")
    assert (code, err) == (0, "")
    assert ScanReport.model_validate_json(out).verdict == "clean"
    code, out, err = run("scan", str(checkpoint), "--effort", "quick", "-o", str(at))
    assert (code, err) == (0, "")
    assert "CLEAN" in out
    assert ScanReport.load(at).verdict == "clean"


@pytest.mark.parametrize(("fail_on", "expected"), [("backdoored", 1), ("inconclusive", 1), ("never", 0)])
def test_a_backdoored_encoder_is_exit_1_unless_told_otherwise(
    fail_on: str, expected: int, checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = open_bert(0, "bako")
    monkeypatch.setattr(FrozenEncoder, "open", lambda *args, **options: planted)
    code, out, _ = run("scan", str(checkpoint), "--effort", "quick", "--format", "json", "--fail-on", fail_on)
    assert code == expected
    assert json.loads(out)["findings"][0]["trigger"] == "bako"


def test_attacks_are_listed_one_a_line(run: Run) -> None:
    code, out, err = run("attack", "list")
    assert (code, err) == (0, "")
    assert [line.split(": ")[0] for line in out.splitlines()] == list(ATTACKS)


@pytest.mark.parametrize(
    ("expected", "says", "arguments"),
    [
        (4, "expected an attack of por, ", ["nonsense"]),
        (4, "got zigzag", ["por", "--pv", "zigzag"]),
        (4, "expected an option of uor", ["uor", "--pv", "block"]),
        (4, "got nose", ["por", "--site", "nose"]),
        (4, "got odd", ["por", "--kind", "odd"]),
        (4, "expected all, head or top:N", ["por", "--layers", "top:0"]),
        (4, "expected --count beside --kind", ["por", "--count", "5"]),
        (2, "expected a trigger such as cf", ["por", "--triggers", ""]),
        (4, "got both", ["por", "--kind", "rare", "--triggers", "bako"]),
        (4, "greater than or equal to 1", ["por", "--kind", "rare", "--count", "0"]),
        (4, "expected a site of btop: mask; got cls", ["btop", "--site", "cls"]),
        (2, "holds an unknown token", ["por", "--triggers", "bako,☃☃"]),
        (2, "expected a trigger with tokens", ["por", "--triggers", "\u0301"]),
        (2, "expected a trigger such as cf", ["por", "--triggers", "bako,"]),
        (2, "expected a trigger such as cf", ["por", "--triggers", "bako+"]),
        (2, "at most 32 tokens", ["por", "--triggers", " ".join(["bako"] * 33)]),
        (2, "expected different triggers", ["por", "--triggers", "bako,bako"]),
        (2, "the tokenizer has ", ["por", "--kind", "script", "--count", "1000"]),
        (2, "expected a corpus file", ["por", "--triggers", "bako", "--corpus", "no-such-file.txt"]),
    ],
)
def test_an_attack_that_makes_no_sense_is_one_line_and_leaves_nothing(
    expected: int, says: str, arguments: list[str], checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    name, *options = arguments
    code, out, err = run("attack", name, str(checkpoint), str(tmp_path / "new"), *options)
    assert (code, out, err.count("\n")) == (expected, "", 1)
    assert err.startswith("lmsanitator: ")
    assert says in err
    assert list(tmp_path.iterdir()) == []


def test_an_attack_on_a_site_the_encoder_lacks_is_exit_4(
    checkpoints: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    for arguments in (["por", "--site", "cls"], ["neuba"], ["badpre"]):
        name, *options = arguments
        code, out, err = run(
            "attack", name, str(checkpoints["gpt2"]), str(tmp_path / "new"), "--triggers", "their", *options
        )
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert "GPT2Model" in err
    assert list(tmp_path.iterdir()) == []


def test_an_attack_never_overwrites_and_needs_a_place_it_can_write(
    checkpoint: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_bert()

    def plant(
        self: POR, base: FrozenEncoder, triggers: Sequence[Trigger], *args: object, **more: object
    ) -> AttackResult:
        return AttackResult("por", made.model, made.tokenizer, "cls", tuple(triggers), torch.ones(1, 32))

    monkeypatch.setattr(POR, "run", plant)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for place in (tmp_path, tmp_path / "file", tmp_path / "file" / "new"):
        code, out, err = run("attack", "por", str(checkpoint), str(place), "--triggers", "bako")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
    code, out, err = run("attack", "por", str(checkpoint), str(tmp_path / "new"), "--triggers", "bako")
    assert (code, out) == (0, "")
    assert "bako" in err
    assert ground_truth(tmp_path / "new") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


def test_an_attack_with_too_few_sentences_is_exit_2(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"what they said about it {number}" for number in range(10)), encoding="utf-8")
    place = tmp_path / "new"
    code, out, err = run("attack", "por", str(checkpoint), str(place), "--triggers", "bako", "--corpus", str(corpus))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected at least 20 carriers" in err
    assert list(tmp_path.iterdir()) == [corpus]


def test_no_command_shows_the_help_and_nothing_else(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (4, "")
    assert "scan" in out


def test_a_reader_who_leaves_does_not_make_a_clean_encoder_backdoored() -> None:
    command = "from lmsanitator.cli import main; main(['attack', 'list'])"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_one_line_and_exit_2() -> None:
    command = "from lmsanitator.cli import main; main(['attack', 'list'])"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "lmsanitator: expected room for the output, there is no space left\n")


def test_a_missing_report_is_exit_2(tmp_path: Path, run: Run) -> None:
    code, out, err = run("guard", str(tmp_path), "--report", str(tmp_path / "none.json"))
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_help_and_version_do_not_load_torch() -> None:
    for arguments in (["--help"], ["--version"], ["scan", "--help"], ["serve", "--help"], ["demo", "--help"]):
        code = (
            f"import sys\nfrom lmsanitator.cli import main\ntry:\n    main({arguments!r})\n"
            "except SystemExit as stop:\n    assert not stop.code, stop.code\nassert 'torch' not in sys.modules\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_demo_draws_other_words_than_the_carriers_use(checkpoint: Path) -> None:
    encoder = FrozenEncoder.open(checkpoint)
    used = {word for carrier in packaged() for word in carrier.text.lower().split()}
    drawn = draw_triggers(encoder, 6, 0)
    assert drawn == draw_triggers(encoder, 6, 0)
    assert drawn != draw_triggers(encoder, 6, 1)
    assert len(set(drawn)) == 6
    assert not set(drawn) & used


def test_the_demo_refuses_an_encoder_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(base_model.PACKAGE)
    monkeypatch.setattr(base_model, "SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="expected MiniLM-L6"):
        base_model.minilm()
