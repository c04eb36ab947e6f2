"""Lets a program run as on a machine that lacks packages."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def forbid(*packages: str) -> None:
    """Let none of these packages be imported in this process any more."""
    sys.meta_path.insert(0, _Missing(packages))


class _Missing(MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"{name} is not on this machine", name=name)
        return None
