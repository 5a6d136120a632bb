from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import fit_run


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return fit_run(tmp_path / "digits")
