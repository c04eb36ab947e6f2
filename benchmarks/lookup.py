"""How fast 100,000 stored simulations are asked for what is most like a patient's segmentations.

    python benchmarks/lookup.py FOLDER [--entries 100000] [--simulations 300] [--grid 128]
        [--patient SEGMENTATION.nii.gz] [--faiss 4000] [--only build|measure]

In FOLDER two indices are made, with one threshold for each of two masks and with three, if they are
not there yet: about 25 GB for 100,000 entries of 128^3. The entries are real growth runs of the
filtered prior at their ten later times, each as it is and moved by whole voxels within the box of
the brain, at random, until there are enough. So tissue does not fit where a copy lies, but sizes
and shapes do, and copies lie close to each other, which makes it harder to tell them apart.

What is timed, with as many threads as NUMBA_NUM_THREADS says:

- millstream: the exact ten best for growth runs that are not in the index, and for a patient: the
  first time that something is asked, after other questions, and when it is asked again.
- one file an entry: the published method (arXiv 2205.04550), in our own words. Every entry is a
  compressed .npz file of its masks, read and compared in a loop; a sample, scaled. The published
  files hold densities, which takes longer to read.
- faiss: its exact search of binary vectors by Hamming distance, in memory; part of the entries,
  scaled. It answers another question (no Dice, one threshold), but reads the same bits. Where it is
  not installed: pip install faiss-cpu.

The patient is put into the atlas's cube centre on centre, which is crude but enough for a time.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numba
import numpy as np
import psutil
import scipy.ndimage
from numpy.typing import NDArray
from scipy.stats import qmc
from table import print_table

from framework.inverse.index.cubes import Cubes
from framework.inverse.index.index import Index
from framework.inverse.index.writer import IndexWriter
from framework.inverse.search.masks import search_masks
from solvers.tumor.fisher_kolmogorov import FisherKolmogorov

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]
SETS = {
    "1 + 1": {"t1c": (0.6,), "flair": (0.2,)},
    "3 + 3": {"t1c": (0.5, 0.6, 0.75), "flair": (0.1, 0.2, 0.35)},
}
HELD_OUT, FILES, TOP = 20, 200, 10


def designed(solver: FisherKolmogorov, simulations: int) -> Floats:
    """Parameters, the held-out ones first; the same beginning for any number."""
    points = qmc.Halton(len(solver.parameters), seed=0).random(HELD_OUT + simulations)
    return solver.parameters.from_unit(points)


def observe(solver: FisherKolmogorov, fields: NDArray[np.float32], set: str) -> Masks:
    return np.stack(
        [
            np.asarray(solver.observe(fields, **{name: value})[name])
            for name, values in SETS[set].items()
            for value in values
        ]
    )


def cropped(masks: Masks) -> tuple[Masks, NDArray[np.int64]]:
    """Masks [T, *grid] in the box around them, and where it begins."""
    somewhere = masks.any(axis=0)
    spans = [np.flatnonzero(somewhere.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    begin = np.array([span[0] for span in spans])
    box = tuple(slice(span[0], span[-1] + 1) for span in spans)
    return masks[(slice(None), *box)], begin


def placed(part: Masks, begin: NDArray[np.int64], sides: NDArray[np.int64]) -> Any:
    """The masks in a box of whole cubes, and the box's corner."""
    corner = begin - begin % sides
    inside = begin - corner
    box = np.zeros((len(part), *(inside + part.shape[1:])), bool)
    box[(slice(None), *(slice(n, None) for n in inside))] = part
    return box, tuple(corner.tolist())


def build(folder: Path, solver: FisherKolmogorov, entries: int, simulations: int) -> None:
    """Both indices, at once."""
    copies = -(-entries // (simulations * (solver.stored_steps - 1)))
    sides = np.array(Cubes(solver.grid.shape).sides)
    low, high = solver.limits.T
    writers = {
        name: IndexWriter(folder / f"{name[0]}.index", "benchmark", solver.grid.shape, masks)
        for name, masks in SETS.items()
    }
    seconds, grown = dict.fromkeys(SETS, 0.0), 0.0
    for number, parameters in enumerate(designed(solver, simulations)[HELD_OUT:]):
        runs, duration = timed(lambda p=parameters: list(solver.solve(p, 0))[1:])
        grown += duration
        for name, writer in writers.items():
            random = np.random.default_rng(number)  # both are moved alike
            for step, fields in enumerate(runs, 1):
                masks = observe(solver, fields, name)
                if not masks.any():
                    continue
                part, begin = cropped(masks)
                least = np.minimum(low, begin)
                most = np.maximum(high - part.shape[1:], begin)
                for copy in range(copies):
                    box = placed(part, begin, sides)
                    key = number * copies + copy, step
                    seconds[name] += timed(lambda w=writer, k=key, b=box: w.add(*k, *b))[1]
                    begin = random.integers(least, most + 1)
            if writer.full or number == simulations - 1:
                seconds[name] += timed(writer.commit)[1]
        if (number + 1) % 10 == 0:
            print(f"{number + 1} simulations, {grown:.0f} s to grow, to add {seconds}", flush=True)
    for writer in writers.values():
        writer.close()


def held_out(solver: FisherKolmogorov) -> list[dict[str, Masks]]:
    """What would be seen of growth runs that are not in the index: those with a core at the end."""
    ends = (list(solver.solve(parameters, 0))[-1] for parameters in designed(solver, 0))
    masks = [dict(zip(SETS["1 + 1"], observe(solver, end, "1 + 1"), strict=True)) for end in ends]
    return [seen for seen in masks if seen["t1c"].any()]


def patient(path: Path, solver: FisherKolmogorov) -> dict[str, Masks]:
    """A segmentation with BraTS's labels of 2018, by nearest neighbours."""
    image = nibabel.load(path)
    labels, affine = np.asarray(image.dataobj), np.asarray(image.affine)
    ours = np.asarray(solver.affine)
    middle = np.append((np.array(labels.shape) - 1) / 2, 1)
    brain = np.append(solver.limits.mean(axis=1), 1)
    shift = affine @ middle - ours @ brain
    to_image = np.linalg.inv(affine) @ (ours + np.outer(shift, [0, 0, 0, 1]))
    matrix, offset, shape = to_image[:3, :3], to_image[:3, 3], solver.grid.shape
    on_grid = scipy.ndimage.affine_transform(labels, matrix, offset, shape, order=0)
    return {"t1c": np.isin(on_grid, (1, 4)), "flair": on_grid > 0}


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def ask(index: Index, asked: dict[str, dict[str, Masks]]) -> tuple[list[list[str]], float]:
    """A line of the table for each kind of question; and the median time of the first."""
    answers: dict[str, list[Any]] = {}
    for name, masks in asked.items():
        first, again = search_masks(index, masks, top=TOP), []
        for _ in range(5):
            again.append(search_masks(index, masks, top=TOP).seconds)
        answers.setdefault(name.split()[0], []).append((first, float(np.median(again))))
    rows = []
    for name, results in answers.items():
        first = np.array([answer.seconds for answer, _ in results]) * 1000
        again = np.array([seconds for _, seconds in results]) * 1000
        refined = np.array([answer.refined / answer.entries for answer, _ in results])
        scores = np.array([answer.matches[0].score for answer, _ in results])
        cells = (f"{np.median(v):.1f} (most {v.max():.1f})" for v in (first, again, 100 * refined))
        rows.append([name, *cells, f"{np.median(scores):.3f}"])
    typical = [seconds for _, seconds in answers["synthetic"]]
    return rows, float(np.median(typical))


def report(folder: Path, name: str, asked: dict[str, dict[str, Masks]]) -> float:
    """What is told of one index; returns the median time of a synthetic question."""
    index, opening = timed(lambda: Index(folder / f"{name[0]}.index"))
    per = index.entries * index.thresholds
    scanned = sum(table["bytes"] for table in index.manifest["tables"])
    masks, *_ = asked.values()
    _, cold = timed(lambda: search_masks(index, masks, top=TOP))
    print(
        f"\nthresholds {name}: {index.entries} entries, {index.bytes / 1e9:.2f} GB, opened in "
        f"{opening * 1000:.0f} ms, then asked for the first time in {cold * 1000:.0f} ms; "
        f"{scanned / per:.0f} bytes an entry and threshold are for the bounds"
    )
    rows, typical = ask(index, asked)
    print_table(["", "first ms", "again ms", "refined %", "best score"], rows)
    maps = [item for item in psutil.Process().memory_maps() if str(index.folder) in item.path]
    records = sum(item.rss for item in maps if item.path.endswith("voxels"))
    bounds = sum(item.rss for item in maps) - records
    print(
        f"resident of the mapped files, bytes an entry and threshold: {bounds / per:.0f} for the "
        f"bounds, {records / per:.0f} of {8 * len(index.voxels) / per:.0f} of records"
    )
    everything, seconds = timed(lambda: search_masks(index, masks, top=index.entries))
    same = everything.matches[:TOP] == search_masks(index, masks, top=TOP).matches
    print(f"when all entries are refined: {seconds:.1f} s, the same answer: {same}")
    return typical


def one_file_an_entry(folder: Path, solver: FisherKolmogorov, masks: dict[str, Masks]) -> float:
    """Seconds for an entry."""
    folder.mkdir(exist_ok=True)
    for number, parameters in enumerate(designed(solver, FILES // 10)[HELD_OUT:]):
        if not (folder / f"{number}-9.npz").exists():
            for step, fields in enumerate(list(solver.solve(parameters, 0))[1:]):
                t1c, flair = observe(solver, fields, "1 + 1")
                np.savez_compressed(folder / f"{number}-{step}.npz", t1c=t1c, flair=flair)
    paths = sorted(folder.glob("*.npz"))

    def loop() -> list[float]:
        scores = []
        for path in paths:
            with np.load(path) as file:
                entry = {name: file[name] for name in masks}
            dices = [
                2
                * np.count_nonzero(entry[name] & mask)
                / max(np.count_nonzero(entry[name]) + np.count_nonzero(mask), 1)
                for name, mask in masks.items()
            ]
            scores.append(sum(dices) / len(dices))
        return scores

    loop()
    return timed(loop)[1] / len(paths)


def by_faiss(entries: int, masks: dict[str, Masks]) -> float:
    """Seconds for an entry; its time does not depend on what the bits are."""
    import faiss

    faiss.omp_set_num_threads(numba.get_num_threads())
    bits = np.packbits(np.stack(list(masks.values())).ravel())
    random = np.random.default_rng(0)
    index = faiss.IndexBinaryFlat(8 * len(bits))
    for _ in range(entries):
        index.add(np.roll(bits, random.integers(len(bits)))[None])
    index.search(bits[None], TOP)
    return timed(lambda: index.search(bits[None], TOP))[1] / entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--patient", type=Path)
    parser.add_argument("--faiss", type=int, default=4000, help="entries, at most 10,000")
    parser.add_argument("--only", choices=["build", "measure"])
    arguments = parser.parse_args()
    folder, solver = arguments.folder, FisherKolmogorov(arguments.grid)
    folder.mkdir(exist_ok=True)
    if not (folder / "1.index").exists() and arguments.only != "measure":
        build(folder, solver, arguments.entries, arguments.simulations)
    if arguments.only == "build":
        return
    asked = {f"synthetic {n}": masks for n, masks in enumerate(held_out(solver))}
    if arguments.patient:
        asked["patient"] = patient(arguments.patient, solver)
        inside = (asked["patient"]["flair"] & solver.tissue.mask).sum()
        print(f"patient: {inside / asked['patient']['flair'].sum():.0%} of it lies in tissue")
    print(f"{numba.get_num_threads()} threads, grid {solver.grid.shape}")
    ours, _ = (report(folder, name, asked) for name in SETS)
    entries, masks = Index(folder / "1.index").entries, asked["synthetic 0"]
    others = {"one file an entry": one_file_an_entry(folder / "files", solver, masks) * entries}
    try:
        others["faiss, Hamming"] = by_faiss(arguments.faiss, masks) * entries
    except ImportError:
        print("faiss is not installed: pip install faiss-cpu")
    rows = [[name, f"{seconds:.2f}", f"{seconds / ours:.0f}"] for name, seconds in others.items()]
    print()
    print_table(
        [f"{entries} entries", "seconds", "times ours"], [["ours", f"{ours:.4f}", ""], *rows]
    )


if __name__ == "__main__":
    main()
