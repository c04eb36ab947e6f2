"""How the answers get better with more entries, and what entries cost at 128^3.

    python benchmarks/database_size.py STORE [--patients 150] [--entries 1000 2000 5000 10000]
        [--large 12] [--picture docs/explanation/inverse/database_size.png]

The first simulations of STORE are indexed in a folder of their own, up to each number of entries,
and patients made of held-out simulations (`patients.py`) are looked up there.

How to read it: for each number of entries the median over the patients of the best match's
combined Dice, and of the errors of the best match and of the posterior's mean, which is at the
temperature TEMPERATURE. Then, of `--large` simulations of the same design at 128^3, the seconds of
one core and the bytes of a store of float16 and zstd, and what 100,000 of them would take.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from patients import Patient, held_out
from table import print_table

from framework.inverse.index.index import Index
from framework.inverse.index.observer import Observer
from framework.inverse.index.writer import IndexWriter
from framework.inverse.posterior.particles import Particles
from framework.inverse.posterior.posterior import Numbers
from framework.inverse.search.masks import search_masks
from framework.pictures.style import BLUE, ORANGE, STYLE, matplotlib
from framework.store.attributes import solver_of
from framework.store.owner import Store
from framework.store.reader import StoreReader
from framework.study.case import Case
from framework.study.identity import identity
from framework.study.study import Study
from solvers.base import Solver

TEMPERATURE = 0.1


def errors(
    index: Index, reader: StoreReader, solver: Solver, patient: Patient
) -> tuple[float, Numbers, Numbers]:
    """The best score, and the errors of the best match and of the posterior's mean: of every
    quantity that is positive as a ratio, and of the place as a distance."""
    particles = Particles(index, reader, solver, patient.masks)
    posterior = particles.at(TEMPERATURE)
    best = search_masks(index, patient.masks, top=1).matches[0]
    simulation, step = best.simulation, best.position
    t = reader.t[simulation, step : step + 1]
    match = solver.identifiable(reader.parameters[simulation][None], t)
    positive = particles.positive

    def error(values: Numbers) -> Numbers:
        sizes = np.abs(np.log(np.maximum(values[positive], 1e-9) / patient.truth[positive]))
        place = np.linalg.norm((values - patient.truth)[~positive])
        return np.append(np.expm1(sizes), place)

    mean = np.array([estimate.mean for estimate in posterior.quantities.values()])
    nearest = np.array([quantity.values[0] for quantity in match.values()])
    return best.score, error(nearest), error(mean)


def study(
    path: str, sizes: list[int], count: int
) -> tuple[list[str], list[tuple[int, float, Numbers, Numbers]]]:
    """Names of the errors; and for each number of entries the medians."""
    reader = StoreReader(path)
    solver = solver_of(reader)
    masks = solver.masks
    observer = Observer(solver, masks)
    found, patients, first = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted(sizes):
            last = -(-size // len(reader.steps))
            place = Path(folder) / "part.index"
            with IndexWriter(place, "part", solver.grid.shape, masks) as writer:
                for simulation in reader.complete[first:last].tolist():
                    for step, fields in enumerate(reader.fields(simulation)):
                        writer.add(simulation, step, *observer.masks(fields))
                    if writer.full:
                        writer.commit()
                writer.commit()
            first, index = last, Index(place)
            patients = patients or list(held_out(reader, index, solver, count))
            rows = [errors(index, reader, solver, patient) for patient in patients]
            scores, best, mean = (np.median(column, 0) for column in zip(*rows, strict=True))
            found.append((index.entries, float(scores), best, mean))
    of = solver.identifiable(reader.parameters[:1], reader.t[0, -1:])
    names = [name for name, quantity in of.items() if quantity.positive]
    print(f"{len(patients)} patients")
    return [*names, "place"], found


def draw(path: Path, names: list[str], found: list[tuple[int, float, Numbers, Numbers]]) -> None:
    """The score and the errors against the number of entries."""
    entries = [line[0] for line in found]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * (1 + len(names)), 2.8), layout="constrained")
        score, *others = figure.subplots(1, 1 + len(names))
        score.plot(entries, [line[1] for line in found], "o-", color=BLUE)
        score.set_title("Dice of the best match")
        for number, (name, axes) in enumerate(zip(names, others, strict=True)):
            scale = 1 if name == "place" else 100
            for label, column, color in (("best match", 2, ORANGE), ("posterior mean", 3, BLUE)):
                values = [scale * line[column][number] for line in found]
                axes.plot(entries, values, "o-", color=color, label=label)
            axes.set_title(f"error of {name} [{'mm' if name == 'place' else '%'}]")
            axes.set_ylim(bottom=0)
        for axes in (score, *others):
            axes.set_xscale("log")
            axes.set_xlabel("entries")
            axes.grid()
        others[0].legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def large(config: Path, count: int) -> None:
    """Time simulations at 128^3 and measure their store."""
    said = Study.load(config, ["solver.grid_size=128"])
    case = Case(said)
    solver, design = case.solver, case.design
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/large.zarr"
        store = Store.open(path, said.store, identity(case), solver, count)
        writer, solving, storing = store.writer(), 0.0, 0.0
        for id in range(count):
            simulation = design.training(id)
            started = time.process_time()
            fields = list(solver.solve(simulation.parameters, simulation.seed))
            solved = time.process_time()
            for step, values in enumerate(fields):
                writer.append(id, step, values)
            writer.finish(id)
            solving, storing = solving + solved - started, storing + time.process_time() - solved
            store.commit(id, simulation.parameters)
        store.flush()
        size = store.bytes()
        store.close()
    seconds, each = (solving + storing) / count, size / count
    print(
        f"128^3: {seconds:.2f} s of one core a simulation, of which storing {storing / count:.2f}, "
        f"and {each / 1e6:.2f} MB for {solver.stored_steps} entries"
    )
    for name, number in (("entries", 1e5 / solver.stored_steps), ("simulations", 1e5)):
        hours, gigabytes = number * seconds / 3600, number * each / 1e9
        print(f"100,000 {name}: {hours:.1f} core-hours, {gigabytes:.0f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--entries", type=int, nargs="*", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--large", type=int, default=12, help="simulations at 128^3")
    picture = Path("docs/explanation/inverse/database_size.png")
    parser.add_argument("--picture", type=Path, default=picture)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.entries:
        names, found = study(arguments.store, arguments.entries, arguments.patients)
        rows = []
        for entries, score, best, mean in found:
            scales = np.array([100.0] * (len(names) - 1) + [1.0])
            both = zip(best * scales, mean * scales, strict=True)
            rows.append([f"{entries}", f"{score:.3f}", *(f"{a:.1f} {b:.1f}" for a, b in both)])
        units = [name + (" [mm]" if name == "place" else " [%]") for name in names]
        print_table(["entries", "Dice", *units], rows)
        draw(arguments.picture, names, found)
    if arguments.large:
        large(Path(__file__).parents[1] / "configs/tumor_database.yaml", arguments.large)


if __name__ == "__main__":
    main()
