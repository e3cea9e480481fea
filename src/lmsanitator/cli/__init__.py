"""The command line: one file a command. Results on stdout, messages on stderr, exit codes as in the README."""

import errno
import signal
import sys
import threading
import traceback

import typer

from lmsanitator.cli.app import app
from lmsanitator.cli.screen import fail
from lmsanitator.cli.shared import explain
from lmsanitator.errors import LMSanitatorError, panicked
from lmsanitator.memory import keep_freed_memory

CRASH = 2
USAGE = 4
INTERRUPTED = 130
NOBODY_READS = 141
"""What a shell calls a program that a closed pipe ended."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    keep_freed_memory()
    if threading.current_thread() is threading.main_thread():
        # It ends a command as Ctrl-C does: nothing is left behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = app(args=arguments, standalone_mode=False)
    except LMSanitatorError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        if text := explain(error):  # where no command was named the help has been shown, and there is nothing to add
            fail(text)
        sys.exit(USAGE)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except SystemExit:  # typer's for a closed pipe, with 1, which says "backdoored" here
        result = NOBODY_READS
    except Exception as error:  # noqa: BLE001 - Python's own exit code for a crash is 1, which says "backdoored" here
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            fail("expected room for the output, there is no space left")
        else:
            traceback.print_exc()
        sys.exit(CRASH)
    except BaseException as error:
        if not panicked(error):
            raise
        fail(f"expected a tokenizer that works: {error}")
        sys.exit(CRASH)
    if result == INTERRUPTED:  # typer turns Ctrl-C into this code by itself
        fail("interrupted")
    sys.exit(result if isinstance(result, int) else 0)
