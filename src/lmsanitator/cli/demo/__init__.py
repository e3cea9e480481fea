"""lmsanitator demo: a backdoor is planted, found, shown and disarmed, on a real encoder."""

from lmsanitator.cli.demo.command import demo

__all__ = ["demo"]
