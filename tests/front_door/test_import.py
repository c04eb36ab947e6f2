"""`import millstream` takes no time, and has what it says."""

import subprocess
import sys
from importlib import metadata

import pytest
from places import ROOT

import millstream

QUICK = """
import sys
before = set(sys.modules)
import millstream
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - sys.stdlib_module_names))
"""


def test_importing_it_imports_nothing_else() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", QUICK], cwd=ROOT, capture_output=True, text=True, timeout=480
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["millstream"]


def test_all_that_it_exports_is_there() -> None:
    assert sorted(millstream.__all__) == list(millstream.__all__)
    assert dir(millstream) == list(millstream.__all__)
    for name in millstream.__all__:
        assert getattr(millstream, name) is not None
    assert millstream.__version__ == metadata.version("millstream")


def test_what_it_does_not_export_is_named() -> None:
    with pytest.raises(AttributeError, match="millstream has no trian"):
        getattr(millstream, "trian")  # noqa: B009 (mypy sees that it is not there)


def test_what_is_exported_is_documented_with_an_example() -> None:
    for name in (
        "train",
        "resume",
        "simulate",
        "compare",
        "load",
        "predict",
        "open_store",
        "invert",
    ):
        text = getattr(millstream, name).__doc__
        for part in ("Args:", "Returns:", "Raises:", "Example:"):
            assert f"\n    {part}\n" in text, name
