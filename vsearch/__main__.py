"""`python -m vsearch` is the `vsearch` command."""

from vsearch.cli import program

program()
