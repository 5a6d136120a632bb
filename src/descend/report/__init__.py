"""A run directory, or several, as one self-contained HTML page that is readable offline.

>>> import descend.report
>>> descend.report.write(["runs/digits"])  # doctest: +SKIP
PosixPath('runs/digits/report.html')
"""

from __future__ import annotations

from .page import write

__all__ = ["write"]
