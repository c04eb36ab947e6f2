"""The training core runs where neither ray, zarr, mlflow nor pydantic are installed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_surrogate_learns_from_a_reservoir_on_a_bare_machine() -> None:
    program = ROOT / "tests" / "support" / "bare_machine.py"
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ran = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    first, last = map(float, ran.stdout.split())
    assert last < 0.3 * first
