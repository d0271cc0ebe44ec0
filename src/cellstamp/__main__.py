"""``python -m cellstamp``: the command line, where the command ``cellstamp`` is not on the path."""

from cellstamp.cli import main

main()
