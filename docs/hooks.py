"""What mkdocs makes while it builds: a page for every package and every result, and the options of every command.

Nothing of it is written by hand, so nothing of it can be out of date.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_OPTIONS = re.compile(r"^<!-- options: (\S+) -->$", re.MULTILINE)
_SECTION = "Benchmark results"


def on_config(config: Any) -> Any:
    """Put the results that are there into the navigation."""
    for entry in config.nav:
        if isinstance(entry, dict) and _SECTION in entry:
            entry[_SECTION] = [{path.stem.capitalize(): f"results/{path.name}"} for path in _results()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of packages and results."""
    from mkdocs.structure.files import File

    pages = {f"results/{path.name}": result_page(path) for path in _results()}
    for entry in config.nav:
        for listed in entry.get("Reference", []) if isinstance(entry, dict) else []:
            pages |= {path: package_page(name) for name, path in listed.items() if path.startswith("api/")}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **more: Any) -> str:
    """Fill in the options of commands."""
    return _OPTIONS.sub(lambda found: command_options(found[1]), markdown)


def result_page(path: Path) -> str:
    """A page with a table that a benchmark wrote."""
    return f"# {path.stem.capitalize()}\n\n--8<-- \"{path.relative_to(ROOT).as_posix()}\"\n"


def package_page(name: str) -> str:
    """A page with everything public in a package."""
    module = name if name == "lmsanitator" else f"lmsanitator.{name}"
    return f"# {module}\n\n::: {module}\n"


def command_options(name: str) -> str:
    """Usage, arguments and options of a command, as the command line describes itself."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.core import TyperGroup

    from lmsanitator.cli.app import app

    group = typer.main.get_command(app)
    if not isinstance(group, TyperGroup):
        raise TypeError("expected several commands")
    with group.make_context("lmsanitator", [name], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=group.commands[name], ctx=context, name=f"lmsanitator {name}")
    return text.split("\n", 1)[1].strip()  # the page has a heading of its own


def _results() -> list[Path]:
    return sorted(RESULTS.glob("*.md"))
