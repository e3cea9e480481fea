"""What mkdocs makes while it builds: a page for every package and every result, and the options of every command.

Nothing of it is written by hand, so nothing of it can be out of date.
"""

import ast
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_OPTIONS = re.compile(r"^<!-- options: (\S+) -->$", re.MULTILINE)
_METHODS = "<!-- methods -->"
_ELSEWHERE = "](../benchmarks/results/"
_SHOWN = "show_root_heading: true, show_root_full_path: false, show_root_toc_entry: true, heading_level: 2"
_ENTRY = f"\n    options: {{{_SHOWN}}}\n"
_ALONE = "\n    options: {members: false}\n"
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
    (listed,) = (entry["Reference"] for entry in config.nav if isinstance(entry, dict) and "Reference" in entry)
    rooms = {name: path for part in listed for name, path in part.items() if path.startswith("api/")}
    pages |= {path: package_page(name, set(rooms)) for name, path in rooms.items()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **more: Any) -> str:
    """Fill in the options of commands, and the architectures that can be tuned; results are pages of their own here."""
    filled = _OPTIONS.sub(lambda found: command_options(found[1]), markdown.replace(_ELSEWHERE, "](results/"))
    return filled.replace(_METHODS, tuning_methods()) if _METHODS in filled else filled


def result_page(path: Path) -> str:
    """A page with a table that a benchmark wrote."""
    return f'# {path.stem.capitalize()}\n\n--8<-- "{path.relative_to(ROOT).as_posix()}"\n'


def package_page(name: str, rooms: Collection[str]) -> str:
    """A page with everything public in a package, each from where it is defined: modules and functions share names.

    Args:
        rooms: what has pages; a name of another room is a link to its entry there.
    """
    module = name if name == "lmsanitator" else f"lmsanitator.{name}"
    path = ROOT / "src" / module.replace(".", "/")
    if not path.is_dir():
        return f"# {module}\n\n::: {module}\n"
    tree = ast.parse((path / "__init__.py").read_text(encoding="utf-8"))
    homes = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    (public,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    )
    places = {entry: homes.get(entry, module) for entry in public}
    lines = [f"# {module}", "", f"::: {module}{_ALONE}"]
    for entry, home in places.items():
        room = home.removeprefix("lmsanitator").strip(".").split(".")[0]
        away = room in rooms and room != name
        lines.append(f"- [`{entry}`][{home}.{entry}]" if away else f"\n::: {home}.{entry}{_ENTRY}")
    return "\n".join(lines) + "\n"


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


def tuning_methods() -> str:
    """A table of the methods that each architecture takes with its own head."""
    from lmsanitator.tune.methods import CAPABILITIES, METHODS

    alike: dict[tuple[bool, ...], list[str]] = {}
    for name, reasons in CAPABILITIES.items():
        alike.setdefault(tuple(reasons[method] is None for method in METHODS), []).append(f"`{name}`")
    lines = [f"| architectures | {' | '.join(METHODS)} |", "|---" * (1 + len(METHODS)) + "|"]
    for takes, names in alike.items():
        lines.append(f"| {', '.join(names)} | {' | '.join('yes' if one else 'no' for one in takes)} |")
    return "\n".join(lines)


def _results() -> list[Path]:
    return sorted(RESULTS.glob("*.md"))
