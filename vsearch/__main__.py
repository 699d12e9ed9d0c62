"""`python -m vsearch` is the `vsearch` command."""

import os
import sys

# `-m` puts the working directory first, where a user's downloads may lie. Nothing is imported from there, but this
# package itself where it is run from its checkout.
_home = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
if not getattr(sys.flags, "safe_path", False) and (
    not os.path.isabs(sys.path[0]) or os.path.realpath(sys.path[0]) != _home
):
    del sys.path[0]

from vsearch.cli import program  # noqa: E402

program()
