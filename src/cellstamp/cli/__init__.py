"""The command line: parse arguments, then make the same calls as a notebook.

Exit codes: 0; 2 for invalid input (one line each); 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP, and 149 after
Ctrl-Break on Windows; 1 otherwise. Slow modules are imported by the command that needs them.
"""

from cellstamp.cli.console_script import commands, main

__all__ = ["commands", "main"]
