"""Whether a library is what it says: backups, verification and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.library.checks.backup import BACKUPS, back_up, copy_catalogue
    from vsearch.library.checks.check import Makers, Problem, Report
    from vsearch.library.checks.restore import catalogue_faults, mend_catalogue

# fmt: off
__all__ = [
    "BACKUPS", "Makers", "Problem", "Report", "back_up", "catalogue_faults", "copy_catalogue",
    "mend_catalogue",
]
__getattr__ = face(__name__, {
    "backup": "BACKUPS back_up copy_catalogue",
    "check": "Makers Problem Report",
    "restore": "catalogue_faults mend_catalogue",
})
