"""Nothing public is undocumented, and what the texts tell people to type can be typed."""

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

import lmsanitator
from lmsanitator.attacks import ATTACKS
from lmsanitator.cli.app import app
from lmsanitator.encoder import SITES
from lmsanitator.report import RENDERERS
from lmsanitator.tune.methods import CAPABILITIES
from tests.command_lines import check, found_in

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.glob("*.md"))]
IDS = [str(path.relative_to(ROOT)) for path in TEXTS]
HAND_WRITTEN = ("cli",)  # rooms without an API: the commands have a page of their own


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands() -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return list(group.commands)


def nav() -> list[str]:
    """The pages in the navigation."""

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    return pages(yaml.safe_load(read(ROOT / "mkdocs.yml"))["nav"])


def packages() -> dict[str, list[str]]:
    """Packages and modules of ours with public names, by what their page is called."""
    found = {"lmsanitator": list(lmsanitator.__all__)}
    for module in pkgutil.iter_modules(lmsanitator.__path__):
        if module.ispkg and module.name not in HAND_WRITTEN:
            found[module.name] = list(importlib.import_module(f"lmsanitator.{module.name}").__all__)
    return found


@pytest.mark.parametrize("package", list(packages()))
def test_every_package_has_a_page_and_every_public_name_a_docstring(package: str) -> None:
    assert f"api/{package}.md" in nav()
    module = importlib.import_module("lmsanitator" if package == "lmsanitator" else f"lmsanitator.{package}")
    for name in packages()[package]:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module.__name__}.{name}"
            assert not (inspect.getdoc(value) or "").startswith(f"{name}("), (
                f"{module.__name__}.{name}: made by dataclass"
            )


def test_every_page_is_in_the_navigation_and_every_entry_is_there() -> None:
    written = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    listed = set(nav())
    assert written <= listed
    modules = {page for page in listed - written if page.startswith("api/")}
    assert listed - written == modules
    for page in modules:
        name = Path(page).stem
        assert importlib.util.find_spec("lmsanitator" if name == "lmsanitator" else f"lmsanitator.{name}"), page


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_section_an_example_and_its_options(command: str) -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", read(DOCS / "commands.md"), re.MULTILINE | re.DOTALL))
    assert f"<!-- options: {command} -->" in sections[command]
    assert command in [check(arguments) for arguments in found_in(sections[command])]
    assert sections[command].strip()[0].isalpha()  # what it is for comes first


def test_no_section_is_of_a_command_that_is_gone() -> None:
    assert re.findall(r"^## (\S+)$", read(DOCS / "commands.md"), re.MULTILINE) == commands()


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_every_attack_has_its_row(attack: str) -> None:
    rows = re.findall(rf"^\| `{attack}` \|(.*)\|$", read(DOCS / "attacks.md"), re.MULTILINE)
    assert len(rows) == 1
    assert all(cell.strip() for cell in rows[0].split("|"))


def test_every_site_and_every_report_format_is_explained() -> None:
    for site in SITES:
        assert f"| `{site}` |" in read(DOCS / "extending.md")
    section = read(DOCS / "commands.md").split("## report")[1].split("\n## ")[0]
    for name in RENDERERS:
        assert f"`{name}`" in section


def test_every_step_of_the_method_has_its_picture() -> None:
    shown = re.findall(r"\]\(steps/(\w+)\.svg\)", read(DOCS / "how-it-works.md"))
    assert sorted(shown) == sorted(path.stem for path in (DOCS / "steps").glob("*.svg"))
    assert len(shown) == len(re.findall(r"^## \d", read(DOCS / "how-it-works.md"), re.MULTILINE))


@pytest.mark.parametrize("path", TEXTS, ids=IDS)
def test_commands_in_the_texts_can_be_typed(path: Path) -> None:
    for arguments in found_in(read(path)):
        if arguments[:1] not in (["--install-completion"], ["--config"]):  # the one would install, the other read
            check(arguments)


def test_the_readme_shows_commands() -> None:
    """So that the test above cannot pass by finding none."""
    named = {check(arguments) for arguments in found_in(read(ROOT / "README.md"))}
    assert named >= {"scan", "report", "tune", "guard", "evaluate", "serve", "attack"}


@pytest.mark.parametrize("path", TEXTS, ids=IDS)
def test_targets_of_make_in_the_texts_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", read(path), re.MULTILINE))
    assert named <= targets
    if path.name == "README.md" and path.parent == ROOT:
        assert named


@pytest.mark.parametrize("path", TEXTS, ids=IDS)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", read(path)):
        made = path.parent == DOCS and target.startswith(("api/", "results/"))  # while the docs are built
        place = ROOT / "benchmarks" / target if made and target.startswith("results/") else path.parent / target
        assert target in nav() if made and target.startswith("api/") else place.exists(), target


def test_the_modules_named_in_the_texts_can_be_run() -> None:
    for path in TEXTS:
        for module in re.findall(r"python -m ((?:benchmarks|lmsanitator|tests)[\w.]*)", read(path)):
            assert importlib.util.find_spec(module), module


def test_examples_in_python_are_python_and_import_what_is_there() -> None:
    for path in TEXTS:
        for block in re.findall(r"^```python\n(.*?)^```", read(path), re.MULTILINE | re.DOTALL):
            compile(block, str(path), "exec")
            for line in re.findall(r"^from lmsanitator.*$", block, re.MULTILINE):
                exec(line, {})  # noqa: S102 - an import of ours


def test_files_that_pages_include_are_there() -> None:
    included = []
    for path in DOCS.glob("*.md"):
        for line in read(path).splitlines():
            if re.search(r"--\s*8\s*<", line):  # a formatter for Python has taken the mark for an expression before
                found = re.fullmatch(r'--8<-- "(.+)"', line)
                assert found, f"{path.name}: {line}"
                assert (ROOT / found[1]).is_file(), line
                included.append(found[1])
    assert {"CHANGELOG.md", "src/lmsanitator/attacks/por.py", "src/lmsanitator/report/__init__.py"} <= {*included}


def test_the_methods_an_architecture_takes_are_those_that_tuning_takes() -> None:
    text = runpy.run_path(str(DOCS / "hooks.py"))["on_page_markdown"](read(DOCS / "commands.md"))
    (row,) = (line for line in text.splitlines() if "`mpnet`" in line)
    assert row.endswith("| no | yes | yes | yes |")
    assert all(f"`{name}`" in text for name in CAPABILITIES)


def test_options_of_commands_are_taken_from_the_command_line() -> None:
    hooks = runpy.run_path(str(DOCS / "hooks.py"))
    text = hooks["on_page_markdown"]("before\n\n<!-- options: scan -->\n\nafter")
    assert "--effort <quick|standard|deep>" in text
    assert "--fail-on" in text
    assert text.startswith("before")
    assert text.endswith("after")


def test_the_site_is_built_without_a_warning_and_has_every_public_name(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for package, names in packages().items():
        page = read(tmp_path / "api" / package / "index.html")
        for name in names:
            assert re.search(rf'(<h2 id="|href="[^"]+#)lmsanitator\.[\w.]*\b{name}"', page), f"{package}: {name}"
    results = sorted(path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md"))
    assert results == sorted(path.name for path in (tmp_path / "results").iterdir())
