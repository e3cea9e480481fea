"""The command line: one file a command. Results on stdout, messages on stderr, exit codes as in the README."""

import sys

import typer

from lmsanitator.cli.app import app
from lmsanitator.cli.screen import fail
from lmsanitator.errors import LMSanitatorError
from lmsanitator.memory import keep_freed_memory

USAGE = 4
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    keep_freed_memory()
    try:
        result = app(args=arguments, standalone_mode=False)
    except LMSanitatorError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        fail(str(error))
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted")
        sys.exit(INTERRUPTED)
    sys.exit(result if isinstance(result, int) else 0)
