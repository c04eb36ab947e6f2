"""The table of surrogates says of each what its class says."""

import importlib
import inspect
from typing import get_type_hints

import pytest

from framework.study.component import describe
from surrogates.base import Surrogate
from surrogates.table import TABLE


def surrogate_class(name: str) -> type[Surrogate]:
    module, _, attribute = TABLE[name].path.partition(":")
    found: type[Surrogate] = getattr(importlib.import_module(module), attribute)
    return found


@pytest.mark.parametrize("name", TABLE)
def test_the_settings_are_the_arguments_of_the_constructor_after_the_problem(name: str) -> None:
    there, here = surrogate_class(name), TABLE[name].settings
    problem, *constructed = inspect.signature(there).parameters.values()
    assert problem.name == "problem"
    assert [(item.name, item.default, item.kind) for item in constructed] == [
        (item.name, item.default, item.kind) for item in inspect.signature(here).parameters.values()
    ]
    annotated = get_type_hints(there.__init__, include_extras=True)
    annotated.pop("problem")
    assert get_type_hints(here, include_extras=True) == annotated


@pytest.mark.parametrize("name", TABLE)
def test_the_summary_is_the_first_sentence_of_the_documentation(name: str) -> None:
    assert describe(name, TABLE[name].settings) == describe(name, surrogate_class(name), 1)
