"""YAML as studies are written in it: every key once, and numbers as people write them.

YAML takes the last of two equal keys, and YAML 1.1 takes 2e-1 for a text. Both are mended here.
"""

import re
from typing import Any

import yaml

_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_FLOAT, _MERGE = "tag:yaml.org,2002:float", "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """A loader that reads numbers with an exponent but no point as numbers."""


class _Dumper(yaml.SafeDumper):
    """A dumper that puts texts which look like such numbers in quotes."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        _FLOAT, re.compile(f"(?:{_EXPONENT.pattern})$"), list("-+.0123456789")
    )


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds, as plain values.

    Raises yaml.YAMLError, ValueError or RecursionError if it is not YAML, and ValueError if a key
    is given twice or an anchor holds itself. Merge keys (<<) may be overridden, as YAML says.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, "", [], set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def write_yaml(values: Any) -> str:
    """Return plain values as a YAML text, which `read_yaml` reads as the same."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


class RepeatedError(ValueError):
    """YAML that can be read, but contradicts or holds itself."""


def _check_keys(node: yaml.Node, path: str, above: list[yaml.Node], seen: set[int]) -> None:
    """Raise RepeatedError if a mapping has a key twice, or a node is one of those above it."""
    if any(node is other for other in above):
        raise RepeatedError(
            f"{path} holds itself: its alias, such as *a, has to be of an anchor outside of it"
        )
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _check_keys(item, f"{path}.{number}".lstrip("."), [*above, node], seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            scalar = isinstance(key, yaml.ScalarNode)
            name = f"{path}.{key.value}".lstrip(".") if scalar else path
            line = key.start_mark.line + 1
            if scalar and (key.tag, key.value) in lines:
                raise RepeatedError(_twice(name, key.tag, lines[key.tag, key.value], line))
            if scalar:
                lines[key.tag, key.value] = line
            _check_keys(value, name, [*above, node], seen)


def _twice(name: str, tag: str, first: int, then: int) -> str:
    where = f"in line {first}" if first == then else f"in lines {first} and {then}"
    if tag == _MERGE:
        return f"{name} is given twice, {where}: merge several by <<: [*a, *b]"
    return f"{name} is given twice, {where}: leave out one"
