"""Settings: the command line counts first, then the environment, then the file; a model brings none along."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lmsanitator.detect import ScanConfig
from lmsanitator.errors import CheckpointError

Run = Callable[..., tuple[int, str, str]]
HOSTILE = '[scan]\nfail-on = "never"\nlevel = 1e-9\neffort = "quick"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ScanConfig]:
    """What scans were asked for; none is run."""
    configs: list[ScanConfig] = []

    def scan(source: str, config: ScanConfig, **more: object) -> None:
        configs.append(config)
        raise CheckpointError("not scanned")

    monkeypatch.setattr("lmsanitator.detect.scan", scan)
    return configs


def test_the_command_line_counts_before_the_environment_before_the_file(
    here: Path, asked: list[ScanConfig], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "lmsanitator.toml").write_text('[scan]\neffort = "deep"\nseed = 3\nlevel = 0.05\n', encoding="utf-8")
    monkeypatch.setenv("LMSANITATOR_SCAN_EFFORT", "quick")
    monkeypatch.setenv("LMSANITATOR_SCAN_SEED", "4")
    assert run("scan", "x", "--seed", "5")[0] == 2
    assert (asked[0].seed, asked[0].effort, asked[0].level, asked[0].precision) == (5, "quick", 0.05, "auto")
    monkeypatch.delenv("LMSANITATOR_SCAN_EFFORT")
    run("scan", "x")
    assert (asked[1].seed, asked[1].effort) == (4, "deep")


def test_settings_may_lie_in_pyproject_and_the_own_file_comes_first(
    here: Path, asked: list[ScanConfig], run: Run
) -> None:
    (here / "pyproject.toml").write_text("[tool.lmsanitator.scan]\nseed = 7\n", encoding="utf-8")
    run("scan", "x")
    (here / "lmsanitator.toml").write_text("[scan]\nseed = 8\n", encoding="utf-8")
    run("scan", "x")
    assert [config.seed for config in asked] == [7, 8]


def test_a_project_without_settings_of_ours_changes_nothing(here: Path, asked: list[ScanConfig], run: Run) -> None:
    (here / "pyproject.toml").write_text('tool = 3\n[project]\nname = "x"\n', encoding="utf-8")
    assert run("scan", "x") == (2, "", "lmsanitator: not scanned\n")
    assert asked[0].seed == 0


def test_a_file_that_is_used_is_named_with_what_it_set(here: Path, asked: list[ScanConfig], run: Run) -> None:
    (here / "lmsanitator.toml").write_text(HOSTILE + "quiet = true\n", encoding="utf-8")
    _, _, err = run("scan", "x", "--effort", "deep")
    assert "settings of lmsanitator.toml: level 1e-09, fail-on never, quiet true" in err
    _, _, err = run("scan", "x", "--quiet")  # the user may ask for silence, the file may not
    assert err == "lmsanitator: not scanned\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[scan]\nefort = "deep"\n', "got efort"),
        ('[scan]\nfail_on = "never"\n', "got fail_on"),
        ('[scan]\nmodel = "x"\n', "got model"),
        ("[scan]\nseed = [1]\n", "for scan.seed in"),
        ("[scna]\nseed = 1\n", "got scna"),
        ("seed = 1\n", "got seed"),
        ("scan = 1\n", "got scan"),
        ("[scan\n", "settings in TOML"),
        ("[scan]\nseed = true\n", "Invalid value for '--seed'"),
        ('[scan]\neffort = "heroic"\n', "Invalid value for '--effort'"),
        ("[guard]\nrate = 1\nreprot = 1\n", "got reprot"),  # of another command than the one that runs
    ],
)
@pytest.mark.parametrize("name", ["lmsanitator.toml", "pyproject.toml"])
def test_a_file_that_makes_no_sense_is_one_line_and_exit_4(
    name: str, text: str, says: str, here: Path, asked: list[ScanConfig], run: Run
) -> None:
    if name == "pyproject.toml":
        text = f"[tool.lmsanitator]\n{text}" if text[0] != "[" else text.replace("[", "[tool.lmsanitator.", 1)
    (here / name).write_text(text, encoding="utf-8")
    code, out, err = run("scan", "x")
    assert (code, out, err.count("\n"), asked) == (4, "", 1, [])
    assert says in err
    assert name in err


def test_a_file_that_cannot_be_read_is_one_line_and_exit_4(here: Path, run: Run) -> None:
    (here / "latin.toml").write_bytes(b"[scan]\ncorpus = '\xe9'\n")
    for name in ("none.toml", "latin.toml", "."):
        code, out, err = run("--config", name, "scan", "x")
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert "expected settings" in err


def test_a_wrong_variable_is_named(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSANITATOR_SCAN_EFFORT", "heroic")
    code, out, err = run("scan", "x")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "(in LMSANITATOR_SCAN_EFFORT)" in err


@pytest.mark.parametrize("where", ["model", "parent", "reference"])
def test_settings_that_lie_with_a_model_are_never_read(
    where: str, here: Path, asked: list[ScanConfig], run: Run
) -> None:
    model = here.parent / "models" / "model"
    model.mkdir(parents=True)
    folder = model.parent if where == "parent" else model
    (folder / "lmsanitator.toml").write_text(HOSTILE, encoding="utf-8")
    (folder / "pyproject.toml").write_text("[tool.lmsanitator.no-such-command]\n", encoding="utf-8")
    given = ("x", "--reference", str(model)) if where == "reference" else (str(model),)
    assert run("scan", *given) == (2, "", "lmsanitator: not scanned\n")
    assert (asked[0].effort, asked[0].level) == ("standard", 0.01)


def test_settings_above_the_working_directory_are_not_read(here: Path, asked: list[ScanConfig], run: Run) -> None:
    (here.parent / "lmsanitator.toml").write_text(HOSTILE, encoding="utf-8")
    assert run("scan", "x") == (2, "", "lmsanitator: not scanned\n")
    assert asked[0].effort == "standard"


@pytest.mark.parametrize("name", ["lmsanitator.toml", "pyproject.toml"])
def test_a_model_that_is_the_working_directory_brings_no_settings_along(
    name: str,
    checkpoints: dict[str, Path],
    here: Path,
    asked: list[ScanConfig],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(checkpoints["bert"], here, dirs_exist_ok=True)
    hostile = HOSTILE if name == "lmsanitator.toml" else HOSTILE.replace("[", "[tool.lmsanitator.")
    (here / name).write_text(hostile, encoding="utf-8")
    code, _, err = run("scan", ".")
    assert (code, asked[0].effort, asked[0].level) == (2, "standard", 0.01)
    assert err.splitlines()[0].startswith(f"lmsanitator: {name} is not read: ")
    run("--config", name, "scan", ".")  # unless the user asks for it by name
    monkeypatch.setenv("LMSANITATOR_CONFIG", name)
    run("scan", ".")
    assert [config.effort for config in asked[1:]] == ["quick", "quick"]


def test_a_file_may_give_what_a_command_requires(here: Path, run: Run) -> None:
    (here / "lmsanitator.toml").write_text('[guard]\nreport = "none.json"\n', encoding="utf-8")
    code, _, err = run("guard", "x")
    assert code == 2
    assert "none.json" in err


def test_a_flag_of_the_file_can_be_taken_back(here: Path, run: Run) -> None:
    (here / "lmsanitator.toml").write_text("[guard]\njson = true\n[attack]\nquiet = true\n", encoding="utf-8")
    assert "quiet true" in run("attack", "list")[2]
    assert run("attack", "list", "--no-quiet")[2] == ""
    code, _, err = run("guard", "x", "--no-json", "--report", "none.json")
    assert (code, "json true" in err) == (2, False)


@pytest.mark.parametrize("sign", ["config.json", "modules.json", "adapter_config.json", "model-00001-of-2.safetensors"])
def test_settings_beside_any_part_of_a_model_are_not_read(
    sign: str, here: Path, asked: list[ScanConfig], run: Run
) -> None:
    (here / "lmsanitator.toml").write_text(HOSTILE, encoding="utf-8")
    (here / sign).touch()
    run("scan", "0_Transformer")
    (here / sign).unlink()
    (here / "scan.pvs.safetensors").touch()  # what `scan -o` leaves there is no model
    run("scan", "0_Transformer")
    assert [config.effort for config in asked] == ["standard", "quick"]


def test_the_config_of_a_checkpoint_is_no_file_of_settings(here: Path, asked: list[ScanConfig], run: Run) -> None:
    (here / "config.json").write_text(json.dumps({"scan": {"effort": "quick"}}), encoding="utf-8")
    run("scan", ".")
    assert asked[0].effort == "standard"
