"""What an error says to the user."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from framework.errors import raised

OWN = """
import json
import numpy as np

def by_library():
    return np.linalg.inv(np.zeros((2, 2)))

def by_standard_library():
    return json.loads("no")

def by_itself():
    raise KeyError("u")

def by_millstream():
    from solvers.base import Parameter
    return Parameter("a", 1.0, 0.0)
"""


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        ("by_library", np.linalg.LinAlgError, "LinAlgError: Singular matrix ({}:6)"),
        (
            "by_standard_library",
            json.JSONDecodeError,
            "JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({}:9)",
        ),
        ("by_itself", KeyError, "KeyError: 'u' ({}:12)"),
        ("by_millstream", ValueError, "({}:16)"),
    ],
)
def test_an_error_names_the_user_s_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, kind: type[Exception], said: str
) -> None:
    """Not the line of the library in which it was raised."""
    file = tmp_path / "own_code.py"
    file.write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    own = importlib.import_module("own_code")
    with pytest.raises(kind) as found:
        getattr(own, function)()
    # This test's own line lies further out.
    assert raised(found.value).endswith(said.format(file))
    monkeypatch.delitem(sys.modules, "own_code")


def test_without_a_line_of_the_user_s_the_innermost_counts() -> None:
    compiled = compile("1 / 0", "<string>", "exec")
    error = None
    try:
        exec(compiled, {})
    except ZeroDivisionError as found:
        error = found.with_traceback(found.__traceback__.tb_next if found.__traceback__ else None)
    assert error is not None
    assert raised(error) == "ZeroDivisionError: division by zero (<string>:1)"
