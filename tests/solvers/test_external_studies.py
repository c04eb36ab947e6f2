"""The studies in configs/ that start a program, by docs/how-to/external.md; one through Ray."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
import yaml
from commands import millstream, the_object
from places import ROOT
from programs import STEPS, WELL, expected, program
from waiting import until

from framework.simulation.solver_actor import SolverActor
from framework.study.case import Case
from framework.study.design import Simulation
from framework.study.study import Study
from solvers.heat import Heat

PARAMETERS = np.array([150.0, 420.0, 230.0, 310.0, 480.0])
BUILDS = re.findall(r"^mkdir -p build && .*$", (ROOT / "docs/how-to/external.md").read_text(), re.M)
# What has to be there for the lines; the first name in a line that is none of these is cc.
TOOLS = {
    "c": ["cc"],
    "stays": ["cc"],
    "fortran": ["cc", "gfortran"],
    "mpi": ["mpicc", "mpirun"],
    "python": [],
}


def checkout(directory: Path) -> None:
    """What the examples need of the repository, for a build that leaves it as it is."""
    for name in ("clients", "configs", "examples"):
        (directory / name).symlink_to(ROOT / name)


def build(name: str, directory: Path) -> None:
    """Run the line of docs/how-to/external.md that compiles an example."""
    for tool in TOOLS[name]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    checkout(directory)
    for line in BUILDS:
        if f"build/heat_{name}" in line:
            subprocess.run(line, shell=True, check=True, cwd=directory)


@pytest.mark.parametrize("name", TOOLS)
def test_a_study_computes_what_the_heat_solver_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    # The example in Python needs one with numpy.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    # Two ranks where there may be one core.
    monkeypatch.setenv("OMPI_MCA_rmaps_base_oversubscribe", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    solver = Case(Study.load(f"configs/external_{name}.yaml")).solver
    temperature = np.stack(list(solver.solve(PARAMETERS, seed=0)))
    expected = np.stack(list(Heat(32, 20, 0.1).solve(PARAMETERS, seed=0)))
    # Later than a tenth of the time: there the sides' jumps make both schemes' steps inaccurate.
    assert np.abs(temperature - expected)[2:].max() < 1.5  # K; the temperatures span 330 K
    np.testing.assert_allclose(solver.times(PARAMETERS), Heat(32, 20, 0.1).times(PARAMETERS))


def test_every_line_of_the_documentation_is_tried() -> None:
    assert len(BUILDS) == sum(bool(tools) for tools in TOOLS.values())


def test_a_failure_reaches_the_framework_in_one_line(tmp_path: Path) -> None:
    body = WELL.replace("millstream.finalize()", "sys.exit('mesh is tangled')")
    actor = SolverActor(lambda: program(tmp_path, body), time_limit=60)
    messages = list(actor.run([Simulation(7, np.array([2.5]), 1)], steps_per_block=2))
    *blocks, failure = [block for message in messages for block in message.blocks]
    assert failure.error is not None
    assert "status 1 after 4 of 4 steps; its standard error ends: mesh is tangled" in failure.error
    assert "\n" not in failure.error
    assert sum(len(block) for block in blocks) < STEPS  # else it would count as complete
    np.testing.assert_array_equal(blocks[0].fields, expected(2.5)[:2])


def processes_of(program: Path) -> list[str]:
    """The processes that run a program."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if str(program) in (entry / "cmdline").read_text():
                    found.append(entry.name)
    return found


@pytest.mark.usefixtures("on_cluster")
def test_a_run_says_where_the_output_of_a_failed_program_is_kept(tmp_path: Path) -> None:
    study = yaml.safe_load((ROOT / "configs/external_c.yaml").read_text())
    script = "echo cold; echo tangled >&2; exit 3"
    study["solver"]["command"] = ["sh", "-c", script, *study["solver"]["command"][-5:]]
    study["ensemble"]["max_quarantined"] = 0
    study["surrogate"] = {"name": "mlp", "hidden": [4]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    ran = millstream(tmp_path, "train", "study.yaml", "tracking.uri=none")
    assert ran.returncode == 1
    kept = tmp_path / "runs/external_c/programs/failed/held-out_simulation_0.3"
    said = f"standard error ends: tangled; its output and its directory are kept in {kept}"
    assert said in " ".join(ran.stderr.split())
    assert (kept / "stdout.txt").read_text() == "cold\n"


@pytest.mark.usefixtures("on_cluster")
def test_programs_fill_a_store_from_solver_processes_that_started_elsewhere(
    tmp_path: Path,
) -> None:
    """They stay, what they print lies beside the store, and none is left in the end."""
    build("stays", tmp_path)
    study = yaml.safe_load((ROOT / "configs/external_stays.yaml").read_text())
    study["ensemble"]["actors"] = 2
    study["design"]["simulations"] = 6
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    ran = millstream(tmp_path, "simulate", "study.yaml", "--json")
    assert ran.returncode == 0, ran.stderr
    assert the_object(ran.stdout)["simulations"]["completed"] == 6
    kept = tmp_path / "stores/external_stays.zarr.programs/done"
    assert sorted(path.name for path in kept.iterdir()) == [f"simulation_{id}.1" for id in range(6)]
    assert (kept / "simulation_3.1/stdout.txt").read_text().startswith("initial temperature")
    until(lambda: not processes_of(tmp_path / "build/heat_stays"))
    with xarray.open_zarr(tmp_path / "stores/external_stays.zarr") as store:
        assert store.complete.values[:6].all()
        sides = store.temperature.values[5, 7, [0, 10, -1, 10], [10, 0, 10, -1]]
        wanted = store.parameters.values[5, [3, 1, 4, 2]]
        np.testing.assert_allclose(sides, wanted, rtol=1e-6)
