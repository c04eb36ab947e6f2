"""A local Ray without the processes that nobody asks here.

Ray 2.60 starts beside its two servers (gcs_server and raylet) a monitor, a dashboard, a log
monitor and two agents: 310 MB, and 3 s of a processor at every start. They answer questions of
browsers and of other programs, and install packages for single tasks; a run needs none of it.
Ray has no settings to do without them, so what starts them is replaced while Ray starts. That is
Ray's inside, which any version may change: other versions than the one known start whole.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import node, services

_KNOWN = "2.60."
# The raylet waits for these ports of its agents. Ray's own agents give -1 for what they do not do.
_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)
# It also ends when an agent ends, so a program stands in that does nothing until its input ends:
# with the raylet, however that ends.
_AGENT = "cat"
_PIPED_INPUT = {"RAY_enable_pipe_based_agent_to_parent_health_check": "1"}
_IMPORTED = "RAY_preload_python_modules"


@contextmanager
def lean(workers: int, modules: Sequence[str]) -> Iterator[None]:
    """Start Ray with `ray.init` in the block: lean, and with so many processes for solvers.

    Its processes import `modules` as they start, which nothing waits for yet.
    """
    if not ray.__version__.startswith(_KNOWN):
        yield
        return
    start = services.start_ray_process

    def start_process(command: list[str], kind: str, *given: Any, **options: Any) -> Any:
        if kind == "raylet":
            command = _lean_raylet(command, workers)
            own = {**_PIPED_INPUT, _IMPORTED: ",".join(modules)}
            options["env_updates"] = {**(options.get("env_updates") or {}), **own}
        return start(command, kind, *given, **options)

    with ExitStack() as replaced:
        for owner, name, value in (
            (services, "start_ray_process", start_process),
            (node.Node, "start_monitor", _nothing),
            (node.Node, "start_api_server", _nothing),
            (node.Node, "start_log_monitor", _nothing),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _lean_raylet(command: list[str], workers: int) -> list[str]:
    """Return the command of a raylet whose agents are stand-ins; write the ports it waits for."""
    named = dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part)
    for port in _PORTS:
        Path(named["--session_dir"], f"{port}_{named['--node_id']}").write_text("-1")
    named |= {
        "--dashboard_agent_command": _AGENT,
        "--runtime_env_agent_command": _AGENT,
        "--num_prestart_python_workers": str(workers),
    }
    return [
        f"{name}={named[name]}" if (name := part.partition("=")[0]) in named else part
        for part in command
    ]


def _nothing(self: Any, **options: Any) -> None:
    """Start no process."""
