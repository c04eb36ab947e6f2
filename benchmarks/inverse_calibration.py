"""Whether credible intervals hold what they promise, on patients made of held-out simulations.

    python benchmarks/inverse_calibration.py STORE [--simulations 1700]
        [--masks t1c flair]

STORE has been indexed, and so calibrated on its own simulations, by `millstream index`. The
patients are others: of simulations that the study holds out (`patients.py`).

How to read it: for each quantity, how often its 90 % interval holds the truth; its median width, as
a part of the 90 % interval of the prior, and of the prior given that there is something to see; the
median error of the posterior's mean; and how the truth's rank among the posterior is spread over
ten equal bins: even, if all intervals are right. Then how many are told that nothing fits: of these
patients, and of pairs of them seen as one.
"""

import argparse
import time

import numpy as np
import torch
from patients import Patient, held_out
from table import print_table

from framework.inverse.index.index import Index
from framework.inverse.posterior.calibration import Calibration
from framework.inverse.posterior.particles import Particles
from framework.inverse.posterior.posterior import SIDES, Numbers, quantiles
from framework.store.attributes import solver_of
from framework.store.reader import StoreReader


def rank(particles: Particles, patient: Patient, calibration: Calibration) -> Numbers:
    """The weight [q] of what is below the truth."""
    _, values, weights = particles.values(calibration.temperature)
    middle = quantiles(values, weights, (0.5,))[0]
    factors = np.array([calibration.stretch[name] for name in particles.units])
    positive = particles.positive
    true = np.where(positive, np.log(np.where(positive, patient.truth, 1)), patient.truth)
    return np.asarray(weights @ (middle + factors * (values - middle) < true) / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--simulations", type=int, default=1700, help="that are held out")
    parser.add_argument("--masks", nargs="+", help="those that are observed [all]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reader = StoreReader(arguments.store)
    index, solver = Index.open(reader), solver_of(reader)
    calibration = Calibration.read(index, arguments.masks)
    patients = list(held_out(reader, index, solver, arguments.simulations))
    print(f"{len(patients)} patients, {index.entries} entries, {calibration.summary()}", flush=True)
    found, scores, seconds = [], [], []
    for patient in patients:
        started = time.perf_counter()
        masks = {name: patient.masks[name] for name in calibration.masks}
        particles = Particles(index, reader, solver, masks)
        posterior = particles.at(calibration.temperature, calibration.stretch)
        seconds.append(time.perf_counter() - started)
        estimates = posterior.quantities.values()
        columns = [(estimate.mean, *estimate.interval_90) for estimate in estimates]
        found.append([*zip(*columns, strict=True), rank(particles, patient, calibration)])
        scores.append(particles.best)
    mean, low, high, ranks = np.array(found).transpose(1, 0, 2)  # [n, q] each
    truth = np.array([patient.truth for patient in patients])
    weights = np.array([patient.weight for patient in patients]) / 1.0
    held = np.average((low <= truth) & (truth <= high), 0, weights)
    widths, errors = (quantiles(v, weights, (0.5,))[0] for v in (high - low, abs(mean - truth)))
    simulations, steps = index.keys[index.keys[:, 1] > 0].T
    prior = solver.identifiable(reader.parameters[simulations], reader.t[simulations, steps])
    values = np.stack([quantity.values for quantity in prior.values()], 1)
    whole = np.diff(np.quantile(values, SIDES, axis=0), axis=0)[0]
    seen = np.diff(quantiles(truth, weights, SIDES), axis=0)[0]
    rows = []
    for q, name in enumerate(prior):
        bins = np.histogram(ranks[:, q], np.linspace(0, 1, 11), weights=weights)[0] / weights.sum()
        parts = f"{widths[q] / whole[q]:.2f}", f"{widths[q] / seen[q]:.2f}"
        spread = " ".join(f"{100 * share:.0f}" for share in bins)
        rows.append(
            [name, f"{held[q]:.1%}", f"{widths[q]:.3g}", *parts, f"{errors[q]:.3g}", spread]
        )
    print_table(["", "held", "width", "of prior", "of seen", "error", "% by rank"], rows)
    print(f"median seconds for a posterior: {np.median(seconds):.3f}")
    fits = np.array([bool(calibration.fits(score)) for score in scores])
    pairs = []
    for one, other in zip(patients[:200:2], patients[1:200:2], strict=True):
        both = {name: one.masks[name] | other.masks[name] for name in calibration.masks}
        pairs.append(calibration.fits(Particles(index, reader, solver, both).best))
    alarms = np.average(~fits, weights=weights)
    print(f"told that nothing fits: {alarms:.1%} of patients, {1 - np.mean(pairs):.1%} of pairs")


if __name__ == "__main__":
    main()
