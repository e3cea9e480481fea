"""All commands together. Each imports what it needs when it runs, so that `--help` answers at once."""

import typer

from lmsanitator.cli import attack, demo, evaluate, guard, report, scan, serve, tune

app = typer.Typer(
    help="Find and disarm task-agnostic backdoors in pretrained Transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("scan")(scan.scan)
app.command("report")(report.report)
app.command("attack")(attack.attack)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("guard")(guard.guard)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)


@app.callback(invoke_without_command=True)
def options(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Find and disarm task-agnostic backdoors in pretrained Transformers."""
    if version:
        from lmsanitator import __version__

        typer.echo(__version__)
        raise typer.Exit
