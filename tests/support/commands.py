"""Runs the `millstream` command as a user would: in a process and a directory of its own."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from places import SUPPORT
from typer.testing import CliRunner
from waiting import LIMIT

from framework.cli.main import app

MILLSTREAM = str(Path(sys.executable).with_name("millstream"))

# The quickstart with few, small fields of a formula, and a small network.
SMALL = [
    "name=small",
    "solver={name: 'light:Light', grid_size: 16, stored_steps: 10}",
    "design.simulations=40",
    "ensemble.actors=2",
    "ensemble.group_size=2",
    "buffer.capacity=120",
    "buffer.watermark=40",
    "surrogate={name: mlp, hidden: [64]}",
    "validation.simulations=4",
    "validation.every_steps=20",
    "tracking.uri=none",
]


def once(*overrides: str) -> list[str]:
    """The last override of each key; the earlier ones, also of keys within it, are left out.

    Options stay as they are.

    A key within a section that is given whole, such as `solver={...}`, is set in there.
    """
    kept: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        section, _, name = key.rpartition(".")
        whole = yaml.safe_load(kept[section].split("=", 1)[1]) if section in kept else None
        if isinstance(whole, dict):
            kept[section] = f"{section}={json.dumps({**whole, name: yaml.safe_load(value)})}"
            continue
        kept = {k: v for k, v in kept.items() if k != key and not k.startswith(f"{key}.")}
        kept[key] = override
    return list(kept.values())


def millstream(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `directory`."""
    return subprocess.run(
        [MILLSTREAM, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=with_support(),
    )


def in_process(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves the imports: for commands that start no Ray."""
    with contextlib.chdir(directory):
        result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def with_support() -> dict[str, str]:
    """The environment for a process that imports what lies beside this file."""
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def the_object(output: str) -> dict[str, Any]:
    """The one JSON object that is the whole of the output."""
    assert output.count("\n") == 1
    value = json.loads(output)
    assert isinstance(value, dict)
    return value
