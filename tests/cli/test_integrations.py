"""What others run us with: the pre-commit hook, the GitHub Action, the image. The Action's scripts are run, too."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pre_commit.clientlib import load_manifest

from lmsanitator.cli.scan import EffortChoice, FailOn
from tests.command_lines import check, found_in
from tests.planted import save_bert

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
STEPS: dict[str, dict[str, Any]] = {step.get("name", step.get("uses")): step for step in ACTION["runs"]["steps"]}


def test_the_hook_is_one_pre_commit_accepts_and_calls_a_command_of_ours() -> None:
    (hook,) = load_manifest(ROOT / ".pre-commit-hooks.yaml")
    program, *arguments = hook["entry"].split()
    assert program in PROJECT["project"]["scripts"]
    assert check([*arguments, "models/encoder", "--effort", "quick"]) == "scan"
    assert not hook["pass_filenames"]


@pytest.mark.parametrize(
    ("path", "concerned"),
    [
        ("model/model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("a/model.safetensors.index.json", True),
        ("model/config.json", True),
        ("model/tokenizer.json", True),
        ("model/vocab.txt", True),
        ("adapter/adapter_config.json", True),
        ("model/pytorch_model.bin", True),
        ("model/spiece.model", True),
        ("model/added_tokens.json", True),
        ("model/README.md", False),
        ("src/tokenize.py", False),
        ("my-config.json", False),
    ],
)
def test_the_hook_runs_when_a_checkpoint_changes(path: str, concerned: bool) -> None:
    (hook,) = load_manifest(ROOT / ".pre-commit-hooks.yaml")
    assert bool(re.search(hook["files"], path)) is concerned


def test_the_actions_commands_and_choices_are_those_of_the_command_line() -> None:
    defaults = {name: entry.get("default", "model") for name, entry in ACTION["inputs"].items()}
    values = {name.upper().replace("-", "_"): value for name, value in defaults.items()}
    named: list[str] = []
    for step in STEPS.values():
        lines = step.get("run", "").replace(" || code=$?", "").replace(">>", "#")
        filled = ([values.get(word.removeprefix("$"), word) for word in words] for words in found_in(lines))
        named += map(check, filled)
    assert named == ["scan", "report", "report"]
    for name, choices in (("effort", EffortChoice), ("fail-on", FailOn)):
        assert set(choices) <= set(re.findall(r"\w+", ACTION["inputs"][name]["description"]))


def test_every_input_of_the_action_is_used_and_none_is_put_into_a_script() -> None:
    used = [value for step in STEPS.values() for value in step.get("env", {}).values()]
    for name in ACTION["inputs"].keys() - {"category"}:
        assert f"${{{{ inputs.{name} }}}}" in used
    assert "inputs.category" in next(
        step["with"]["category"] for step in STEPS.values() if "category" in step.get("with", {})
    )
    assert not any("${{" in step.get("run", "") for step in STEPS.values())
    assert all(re.fullmatch(r"[\w/-]+@v\d+", step["uses"]) for step in STEPS.values() if "uses" in step)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("action") / "a model's folder")


def run_action(folder: Path, inputs: dict[str, str], planted: str = "") -> tuple[int, dict[str, str]]:
    """Run the Action's scripts after the installation as a runner would: the first code that is not 0, and outputs."""
    program = folder / "lmsanitator" / "bin" / "lmsanitator"
    program.parent.mkdir(parents=True)
    plant = f"FrozenEncoder.open = lambda *args, **options: open_bert(0, {planted!r})"
    imports = "from lmsanitator.encoder import FrozenEncoder; from tests.planted import open_bert"
    planting = f"if sys.argv[1] == 'scan': {imports}; {plant}\n" if planted else ""
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom lmsanitator.cli import main\n{planting}main()\n", encoding="utf-8"
    )
    program.chmod(0o755)
    outputs: dict[str, str] = {}
    given = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | inputs
    for name in ("Scan", "Convert", "Verdict"):
        step, written = STEPS[name], folder / f"{name}.txt"
        filled = dict(step["env"])
        for variable, value in filled.items():
            key = re.fullmatch(r"\$\{\{ (?:inputs|steps\.\w+\.outputs)\.([\w-]+) \}\}", value)
            assert key is not None
            filled[variable] = (given if "inputs." in value else outputs)[key[1]]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(["src", "."]),
            "RUNNER_TEMP": str(folder),
            "GITHUB_OUTPUT": str(written),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            **filled,
        }
        done = subprocess.run(  # noqa: S603
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env=environment,
            cwd=ROOT,
            check=False,
        )
        if written.exists():
            outputs |= dict(line.split("=", 1) for line in written.read_text(encoding="utf-8").splitlines())
        if done.returncode:
            return done.returncode, outputs
    return 0, outputs


def test_the_action_reports_a_backdoor_before_it_fails(checkpoint: Path, tmp_path: Path) -> None:
    ended, outputs = run_action(tmp_path, {"model": str(checkpoint), "effort": "quick"}, planted="bako")
    assert ended == 1
    results = json.loads(Path(outputs["sarif"]).read_text(encoding="utf-8"))["runs"][0]["results"]
    assert "bako" in results[0]["message"]["text"]
    assert "bako" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert Path(outputs["report"]).is_file()


@pytest.mark.slow
def test_the_action_passes_a_clean_encoder(checkpoint: Path, tmp_path: Path) -> None:
    ended, outputs = run_action(tmp_path, {"model": str(checkpoint), "effort": "quick"})
    assert ended == 0
    assert json.loads(Path(outputs["sarif"]).read_text(encoding="utf-8"))["runs"][0]["results"] == []


@pytest.mark.parametrize(("inputs", "code"), [({"model": "$(touch ran)"}, 2), ({"model": "x", "effort": "`a`"}, 4)])
def test_the_action_fails_where_nothing_was_scanned_and_runs_nothing_it_is_given(
    inputs: dict[str, str], code: int, tmp_path: Path
) -> None:
    (tmp_path / "lmsanitator-scan.json").write_text("{}", encoding="utf-8")  # of an earlier use in the same job
    assert run_action(tmp_path, inputs) == (code, {})
    assert not (ROOT / "ran").exists()


def test_the_image_installs_this_package_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    said = [(instruction, rest) for instruction, _, rest in pairs]
    for instruction, rest in said:
        if instruction == "COPY" and "--from" not in rest:
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
            kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
            assert all(f"!{source}" in kept for source in rest.split()[:-1])
    last = dict(said)  # the last of each kind
    assert last["USER"] not in ("root", "0")
    assert [instruction for instruction, _ in said].index("USER") < len(said) - 1
    (program,) = json.loads(last["ENTRYPOINT"])
    assert program in PROJECT["project"]["scripts"]
    extra = re.search(r"\.\[(\w+)\]", " ".join(rest for _, rest in said))
    assert extra is not None
    assert extra[1] in PROJECT["project"]["optional-dependencies"]
