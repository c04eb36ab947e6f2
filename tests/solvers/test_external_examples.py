"""The clients and the examples: compiled as the documentation says, run, and compared."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray
from places import ROOT

from solvers.base import Grid
from solvers.external import External, ProgramError
from solvers.external_settings import Bounds

NAMES = ("initial", "left", "right", "bottom", "top")
TEMPERATURES = np.array([150.0, 420.0, 230.0, 310.0, 480.0])  # K, all different
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{ROOT / 'clients' / 'c'}"]


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def build(directory: Path, *command: str) -> Path:
    """Run a compiler; the program that it makes."""
    target = directory / "program"
    ran = subprocess.run(
        [*command, "-o", str(target)], capture_output=True, text=True, cwd=directory
    )
    assert ran.returncode == 0, ran.stderr
    return target


def heat(n: int, steps: int, **how: Any) -> External:
    """The heat equation's program as a solver, started as `how` says."""
    return External(
        parameters={name: Bounds(100, 500, "K") for name in NAMES},
        fields={"temperature": "K"},
        grid=Grid((n, n), (1 / (n - 1),) * 2),
        stored_steps=steps,
        final_time=0.1,
        time_limit=60,
        **how,
    )


def arguments(n: int, steps: int) -> list[str | float]:
    return [n, steps, 0.1, *(f"{{{name}}}" for name in NAMES)]


def run(solver: External) -> NDArray[np.float64]:
    """The temperature [T, y, x]."""
    return np.stack(list(solver.solve(TEMPERATURES, seed=0)))[:, 0].astype(np.float64)


def semi_discrete(n: int, time: float) -> NDArray[np.float64]:
    """The temperature [y, x] under the five-point Laplacian, exact in time."""
    initial, left, right, bottom, top = TEMPERATURES
    field = np.full((n, n), np.nan)
    field[:, 0], field[:, -1], field[0], field[-1] = left, right, bottom, top
    field[0, 0], field[0, -1] = (left + bottom) / 2, (right + bottom) / 2
    field[-1, 0], field[-1, -1] = (left + top) / 2, (right + top) / 2
    m, h = n - 2, 1 / (n - 1)
    line = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(m, m)) / h**2
    laplacian = scipy.sparse.kronsum(line, line).toarray()
    sides = np.zeros((m, m))
    sides[0] += bottom
    sides[-1] += top
    sides[:, 0] += left
    sides[:, -1] += right
    steady = np.linalg.solve(laplacian, -sides.ravel() / h**2)
    inside = steady + scipy.linalg.expm(time * laplacian) @ (initial - steady)
    field[1:-1, 1:-1] = inside.reshape(m, m)
    return field


def check(solver: External) -> None:
    """The fields are right to the error of the program's first-order time steps of 1/5 h^2."""
    n, temperature = solver.grid.shape[0], run(solver)
    assert (temperature[0, 1:-1, 1:-1] == TEMPERATURES[0]).all()
    for step in (2, 5):  # times 0.04 and 0.1; the temperatures span 330 K
        exact = semi_discrete(n, solver.times(TEMPERATURES)[step])
        assert np.abs(temperature[step] - exact).max() < 2.0
        assert np.abs(temperature[step].T - exact).max() > 50  # axes are not mixed up


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("heat")
    return build(directory, tool("cc"), "-std=c99", *STRICT, str(ROOT / "examples/heat.c"), "-lm")


def c_example(program: Path) -> NDArray[np.float64]:
    return run(heat(14, 6, command=[str(program), *arguments(14, 6)]))


def test_the_c_example(compiled: Path) -> None:
    check(heat(14, 6, command=[str(compiled), *arguments(14, 6)]))


def test_the_c_example_is_of_first_order_in_time(compiled: Path) -> None:
    """More stored steps make its time steps smaller; its time step is 0.1 / (steps - 1) here."""
    errors = []
    for steps in (65, 129, 257):  # below the stability limit on 5 x 5 nodes, h^2 / 5 = 0.0125
        solver = heat(5, steps, command=[str(compiled), *arguments(5, steps)])
        errors.append(np.abs(run(solver)[(steps - 1) // 2] - semi_discrete(5, 0.05)).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(1, abs=0.1)


def test_the_c_client_tells_what_is_wrong_when_it_is_not_started_by_millstream(
    compiled: Path,
) -> None:
    environment = {key: os.environ[key] for key in os.environ if "MILLSTREAM" not in key}
    command = [str(compiled), "8", "2", "0.1", *["300"] * 5]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr == "millstream: init: MILLSTREAM_ADDRESS is not set: Millstream sets it\n"


CPP = """
#include <vector>
#include "millstream.h"

int main(int, char **) {
    const size_t shape[4] = {1, 2, 3, 2}, offset[4] = {1, 0, 0, 2}, first[4] = {1, 2, 3, 4};
    std::vector<float> part(12), most(24);
    for (int i = 0; i < 12; i++) part[i] = 1 + i % 2;
    for (int i = 0; i < 24; i++) most[i] = 10;
    if (millstream_init() || millstream_init() == 0) return 1;
    if (millstream_send(0, NULL, most.data(), sizeof(float), 4, first, NULL)) return 2;
    const size_t rest[4] = {1, 2, 3, 2};
    if (millstream_send(0, NULL, most.data(), sizeof(float), 4, rest, offset + 0)) return 3;
    const size_t begin[4] = {1, 0, 0, 0};
    if (millstream_send(0, NULL, part.data(), sizeof(float), 4, shape, begin)) return 4;
    return millstream_finalize();
}
"""


@pytest.fixture(scope="module")
def compiled_to_stay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    example, directory = str(ROOT / "examples/heat_stays.c"), tmp_path_factory.mktemp("stays")
    return build(directory, tool("cc"), "-std=c99", *STRICT, example, "-lm")


def test_the_c_example_that_stays_computes_the_same_bits(
    compiled: Path, compiled_to_stay: Path
) -> None:
    solver = heat(14, 6, command=[str(compiled_to_stay), 14, 6, 0.1], stays=True)
    for _ in range(3):
        np.testing.assert_array_equal(run(solver), c_example(compiled))


def test_the_c_client_refuses_another_number_of_parameters(compiled_to_stay: Path) -> None:
    solver = External(
        command=[str(compiled_to_stay), 2, 1, 0.1],
        parameters={"a": Bounds(0, 1)},
        fields={"temperature": "K"},
        grid=Grid((2, 2), (1.0, 1.0)),
        times=[0],
        time_limit=60,
        stays=True,
    )
    with pytest.raises(ProgramError, match="ends: millstream: next: the study has 1 parameters, n"):
        list(solver.solve(np.array([0.5]), seed=0))


def test_the_header_is_also_cpp_and_can_be_an_object_of_its_own(tmp_path: Path) -> None:
    header = str(ROOT / "clients/c/millstream.h")
    (tmp_path / "main.cpp").write_text(CPP)
    compiler, implementation = tool("c++"), ["-x", "c", "-DMILLSTREAM_IMPLEMENTATION", header]
    for dialect in ("c99", "c11", "gnu17"):
        command = [tool("cc"), "-c", f"-std={dialect}", *STRICT, *implementation]
        subprocess.run([*command, "-o", str(tmp_path / "client.o")], check=True)
    program = build(tmp_path, compiler, "-std=c++11", *STRICT, "main.cpp", "client.o")
    solver = External(
        command=[str(program), "{a}"],
        parameters={"a": Bounds(0, 1)},
        fields={"u": "1", "v": "1"},
        grid=Grid((2, 3, 4), (1.0, 1.0, 1.0)),
        times=[0],
        time_limit=60,
    )
    (fields,) = solver.solve(np.array([0.5]), seed=0)
    assert (fields[0] == 10).all()
    assert (fields[1, ..., :2] == [1, 2]).all()
    assert (fields[1, ..., 2:] == 10).all()
    (tmp_path / "twice.c").write_text(
        '#define MILLSTREAM_IMPLEMENTATION\n#include "millstream.h"\n#include "millstream.h"\n'
    )
    twice = [tool("cc"), "-c", "-std=c99", *STRICT, str(tmp_path / "twice.c"), "-o", "/dev/null"]
    subprocess.run(twice, check=True)
    inline = ["-x", "c++", "-c", "-DMILLSTREAM_IMPLEMENTATION", header, "-o", "/dev/null"]
    for dialect in ("c++11", "c++20"):
        subprocess.run([compiler, f"-std={dialect}", *STRICT, *inline], check=True)


@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_the_mpi_example_on_a_stand_in_for_mpi(ranks: int, tmp_path: Path, compiled: Path) -> None:
    example, stand_in = str(ROOT / "examples/heat_mpi.c"), f"-I{ROOT / 'tests' / 'support' / 'mpi'}"
    program = build(
        tmp_path, tool("cc"), "-std=gnu99", *STRICT[:1], *STRICT[-1:], stand_in, example, "-lm"
    )
    environment = {"FAKE_MPI_RANKS": ranks}
    solver = heat(14, 6, command=[str(program), *arguments(14, 6)], env=environment)
    np.testing.assert_array_equal(run(solver), c_example(compiled))


def test_the_mpi_example_refuses_more_ranks_than_rows(tmp_path: Path) -> None:
    example, stand_in = str(ROOT / "examples/heat_mpi.c"), f"-I{ROOT / 'tests' / 'support' / 'mpi'}"
    program = build(
        tmp_path, tool("cc"), "-std=gnu99", *STRICT[:1], *STRICT[-1:], stand_in, example, "-lm"
    )
    command = [str(program), "4", "2", "0.1", *["300"] * 5]
    environment = os.environ | {"FAKE_MPI_RANKS": "5"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "heat_mpi: 5 ranks cannot share 4 rows\n" in ran.stderr


def test_the_mpi_example(tmp_path: Path, compiled: Path) -> None:
    launcher = tool("mpirun")
    program = build(
        tmp_path, tool("mpicc"), "-std=c99", *STRICT, str(ROOT / "examples/heat_mpi.c"), "-lm"
    )
    environment = {"OMPI_ALLOW_RUN_AS_ROOT": 1, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": 1}
    environment["OMPI_MCA_rmaps_base_oversubscribe"] = 1
    command = [launcher, "-n", 3, str(program), *arguments(14, 6)]
    solver = heat(14, 6, command=command, env=environment)
    np.testing.assert_array_equal(run(solver), c_example(compiled))


def test_the_fortran_example(tmp_path: Path, compiled: Path) -> None:
    compiler, client = tool("gfortran"), str(ROOT / "clients/c/millstream.h")
    to_object = [tool("cc"), "-c", "-x", "c", "-DMILLSTREAM_IMPLEMENTATION", client]
    subprocess.run([*to_object, "-o", str(tmp_path / "client.o")], check=True)
    sources = [ROOT / "clients/fortran/millstream.f90", ROOT / "examples/heat.f90"]
    flags = ["-std=f2018", "-Wall", "-Wextra", "-Werror", "-fcheck=all"]
    program = build(tmp_path, compiler, *flags, *map(str, sources), "client.o")
    text = (ROOT / "examples/heat.nml").read_text()
    text = text.replace("grid_size = 32, stored_steps = 20", "grid_size = 14, stored_steps = 6")
    (tmp_path / "small.nml").write_text(text)
    command = [str(program), "small.nml"]
    solver = heat(14, 6, command=command, template=tmp_path / "small.nml")
    check(solver)
    np.testing.assert_allclose(run(solver), c_example(compiled), rtol=1e-6)


PARTS = """
program parts
   use millstream
   use, intrinsic :: iso_fortran_env, only: real32
   real(real32) :: u(4, 3, 2)
   integer :: i, status
   call millstream_send(0, "u", u, status=status)
   if (status == 0) error stop 1
   u = reshape([(real(i), i=1, 24)], [4, 3, 2])
   call millstream_init()
   call millstream_send(0, "u", u, offset=[0], status=status)
   if (status == 0) error stop 2
   call millstream_send(0, "u ", u(1:2, :, :), offset=[0, 0, 0])
   call millstream_send(0, "u", u(3:4, 2:3, :), offset=[2, 1, 0])
   call millstream_send(0, "u", u(3:4, 1:1, :), offset=[2, 0, 0])
   call millstream_finalize()
end program
"""


def test_the_fortran_client_sends_parts_of_arrays(tmp_path: Path) -> None:
    compiler, client = tool("gfortran"), str(ROOT / "clients/c/millstream.h")
    to_object = [tool("cc"), "-c", "-x", "c", "-DMILLSTREAM_IMPLEMENTATION", client]
    subprocess.run([*to_object, "-o", str(tmp_path / "client.o")], check=True)
    (tmp_path / "parts.f90").write_text(PARTS)
    module = str(ROOT / "clients/fortran/millstream.f90")
    program = build(tmp_path, compiler, module, "parts.f90", "client.o")
    solver = External(
        command=[str(program), "{a}"],
        parameters={"a": Bounds(0, 1)},
        fields={"u": "1"},
        grid=Grid((2, 3, 4), (1.0, 1.0, 1.0)),
        times=[0],
        time_limit=60,
    )
    (fields,) = solver.solve(np.array([0.5]), seed=0)
    np.testing.assert_array_equal(fields[0], np.arange(1, 25).reshape(2, 3, 4))


STAYS = """
program stays
   use millstream
   use, intrinsic :: iso_fortran_env, only: int64, real64
   real(real64) :: parameters(2), u(2)
   integer(int64) :: seed
   integer :: step
   call millstream_init()
   do while (millstream_next(parameters, seed))
      do step = 0, 2
         u = [parameters(1) + step, parameters(2) + merge(1, 0, seed == 2_int64**62)]
         call millstream_send(step, "u", u)
      end do
   end do
   call millstream_finalize()
   write (*, "(a)") "no more"
end program
"""


def test_a_fortran_program_can_stay(tmp_path: Path) -> None:
    compiler, client = tool("gfortran"), str(ROOT / "clients/c/millstream.h")
    to_object = [tool("cc"), "-c", "-x", "c", "-DMILLSTREAM_IMPLEMENTATION", client]
    subprocess.run([*to_object, "-o", str(tmp_path / "client.o")], check=True)
    (tmp_path / "stays.f90").write_text(STAYS)
    module = str(ROOT / "clients/fortran/millstream.f90")
    flags = ["-std=f2018", "-Wall", "-Wextra", "-Werror", "-fcheck=all"]
    solver = External(
        command=[str(build(tmp_path, compiler, *flags, module, "stays.f90", "client.o"))],
        parameters={"a": Bounds(0, 1), "b": Bounds(0, 1)},
        fields={"u": "1"},
        grid=Grid((2,), (1.0,)),
        stored_steps=3,
        final_time=1.0,
        time_limit=60,
        stays=True,
    )
    for a in (0.5, 0.25):
        frames = np.stack(list(solver.solve(np.array([a, 0.75]), seed=2**63)))
        np.testing.assert_array_equal(frames[:, 0], [[a + step, 1.75] for step in range(3)])


def test_the_python_example(compiled: Path) -> None:
    environment = {"GRID_SIZE": 14, "STORED_STEPS": 6, "FINAL_TIME": 0.1}
    environment["TEMPERATURES"] = " ".join(f"{{{name}}}" for name in NAMES)
    solver = heat(14, 6, command=[sys.executable, str(ROOT / "examples/heat.py")], env=environment)
    check(solver)
    np.testing.assert_allclose(run(solver), c_example(compiled), rtol=1e-6)
