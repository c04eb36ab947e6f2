"""Bred simulations: where they fall, with what weight, and that they stay what they were."""

import csv
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from commands import MILLSTREAM, SMALL, in_process, once, the_object, with_support
from held import held_in, let_go
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from places import QUICKSTART
from scipy.stats import binom, chisquare, norm
from trainers import filled, make_samples, statistics_of
from trainers import make as surrogate_of_seed_0
from waiting import until

from framework.errors import StudyError
from framework.simulation.breeding import BredDesign
from framework.simulation.decisions import Decision, Decisions
from framework.simulation.losses import RecentLosses
from framework.simulation.mutation import mutate, mutation_density
from framework.stream.ledger import Ledger
from framework.stream.source import StreamSource
from framework.study.sections import DesignConfig
from framework.training.trainer import Trainer, TrainerSettings
from solvers.base import Parameter, ParameterSpace

SPACE = ParameterSpace(
    Parameter("a", 100.0, 500.0, "K"), Parameter("b", 1e-4, 1e-1, prior="log_uniform")
)
UNIT = ParameterSpace(Parameter("x", 0.0, 1.0), Parameter("y", 0.0, 1.0))
BATCH = 20

coordinates = st.floats(0, 1)
sigmas = st.floats(0.03, 1)


def make(
    space: ParameterSpace = UNIT,
    simulations: int = 1000,
    seed: int = 3,
    decisions: Decisions | None = None,
    **breed: Any,
) -> BredDesign:
    config = {"sampler": "breed", "simulations": simulations, "breed": breed}
    return BredDesign(
        DesignConfig.model_validate(config), space, seed, decisions or Decisions(), BATCH
    )


def tell(design: BredDesign, losses: dict[int, float]) -> None:
    """The losses of a batch with one sample of each simulation."""
    design.weigh(np.array(list(losses)), torch.tensor(list(losses.values())))


def parents(design: BredDesign, ids: range) -> list[int | None]:
    return [design.decisions.all()[id].parent for id in ids]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@given(
    parent=st.lists(coordinates, min_size=1, max_size=5), sigma=sigmas, seed=st.integers(0, 2**32)
)
def test_a_mutation_stays_in_the_cube(parent: list[float], sigma: float, seed: int) -> None:
    point = mutate(np.array(parent), sigma, np.random.default_rng(seed))
    assert point.shape == (len(parent),)
    assert ((point >= 0) & (point <= 1)).all()


@given(parent=coordinates, sigma=sigmas)
def test_the_density_of_mutations_of_one_parameter_integrates_to_one(
    parent: float, sigma: float
) -> None:
    places = (np.arange(4000) + 0.5) / 4000
    density = mutation_density(places[:, None], np.array([parent]), sigma)
    assert np.mean(density) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("parent", [(0.5, 0.5), (0.02, 0.7), (0.0, 1.0)])
def test_the_density_of_mutations_of_two_parameters_integrates_to_one(
    parent: tuple[float, float],
) -> None:
    middle = (np.arange(500) + 0.5) / 500
    points = np.stack(np.meshgrid(middle, middle), -1)
    density = mutation_density(points, np.array(parent), 0.1)
    assert np.mean(density) == pytest.approx(1, abs=2e-3)


def test_a_mutation_far_from_the_faces_is_gaussian() -> None:
    density = mutation_density(np.array([0.53, 0.49]), np.full((1, 2), 0.5), 0.05)
    expected = norm.pdf(0.03, scale=0.05) * norm.pdf(0.01, scale=0.05)
    np.testing.assert_allclose(density, expected, rtol=1e-12)


@pytest.mark.parametrize(("parent", "sigma"), [(0.03, 0.3), (0.9, 0.08), (0.0, 1.0)])
def test_mutations_are_distributed_as_their_density_says(parent: float, sigma: float) -> None:
    random, center = np.random.default_rng(0), np.array([parent, 0.0])
    drawn = np.array([mutate(center, sigma, random) for _ in range(20_000)])
    edges = np.quantile(drawn[:, 0], np.linspace(0, 1, 9))
    edges[0], edges[-1] = 0, 1
    found, _, _ = np.histogram2d(drawn[:, 0], drawn[:, 1], (edges, [0, sigma / 6, sigma / 2, 1]))
    expected = np.empty_like(found)
    for row, column in np.ndindex(found.shape):
        low = np.array([edges[row], [0, sigma / 6, sigma / 2][column]])
        high = np.array([edges[row + 1], [sigma / 6, sigma / 2, 1][column]])
        middle = (np.arange(30) + 0.5) / 30
        points = low + (high - low) * np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2)
        density = mutation_density(points, center, sigma)
        expected[row, column] = np.mean(density) * np.prod(high - low) * len(drawn)
    kept = expected > 5
    rest = found[kept].sum() / expected[kept].sum()
    assert rest == pytest.approx(1, abs=0.01)
    assert chisquare(found[kept], expected[kept] * rest).pvalue > 1e-3


def test_the_first_simulations_are_even() -> None:
    design = make(SPACE, simulations=64)
    points = SPACE.to_unit(np.array([design.start(id).parameters for id in range(64)]))
    for column in points.T:  # one in every 64th, as of a Sobol sequence
        np.testing.assert_array_equal(np.sort((column * 64).astype(int)), np.arange(64))
    assert parents(design, range(64)) == [None] * 64


def test_parents_are_drawn_in_proportion_to_their_deviation_from_the_batch() -> None:
    design = make(simulations=6000, uniform=(0, 0))
    for id in range(20):
        design.start(id)
    random = np.random.default_rng(1)
    sums = np.zeros(20)
    for scale in (1.0, 100.0):  # how large a batch's losses are does not matter
        losses = random.exponential(size=20).astype(np.float32)
        tell(design, dict(enumerate((scale * losses).tolist())))
        sums += np.maximum(losses - losses.mean(), 0) / losses.std()
    bred = range(20, 4020)
    for id in bred:
        design.start(id)
    drawn = [parent for parent in parents(design, bred) if parent is not None]
    assert len(drawn) == 4000
    found = np.bincount(drawn, minlength=20)
    assert not found[sums == 0].any()
    above = sums > 0
    assert above.sum() > 5
    assert chisquare(found[above], sums[above] / sums.sum() * 4000).pvalue > 1e-3


def test_the_share_of_uniform_draws_goes_from_one_value_to_the_other() -> None:
    design = make(simulations=4000, uniform=(0.9, 0.1))
    for id in range(20):
        design.start(id)
    tell(design, {id: float(id) for id in range(20)})
    for id in range(20, 4000):
        design.start(id)
    for third in (range(20, 1000), range(1500, 2500), range(3000, 4000)):
        found = parents(design, third).count(None)
        share = np.mean([0.9 - 0.8 * id / 3999 for id in third])
        assert 1e-4 < binom.cdf(found, len(third), share) < 1 - 1e-4
    counts = design.counts()
    assert counts["bred"] + counts["uniform"] == 4000
    assert counts["uniform"] == parents(design, range(4000)).count(None)
    assert counts["seconds"] > 0


def corner_loss(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """High in a hundredth of the square, and nearly none elsewhere."""
    return 0.01 + (parameters > 0.9).all(1)


def bred_by_a_corner(simulations: int, **breed: Any) -> BredDesign:
    """A run whose losses are high in a corner, of the simulations that came before."""
    design = make(simulations=simulations, window=200, **breed)
    random, points = np.random.default_rng(0), np.empty((0, 2))
    for id in range(simulations):
        points = np.concatenate([points, design.start(id).parameters[None]])
        ids = random.integers(0, len(points), BATCH)
        design.weigh(ids, torch.tensor(corner_loss(points[ids])))
    return design


def test_simulations_gather_where_the_loss_is_high() -> None:
    design = bred_by_a_corner(600)
    later = np.array([design.training(id).parameters for id in range(300, 600)])
    in_corner = (later > 0.85).all(1).mean()
    assert in_corner > 0.4
    even = np.array([design.even(id) for id in range(300, 600)])
    assert (even > 0.85).all(1).mean() < 0.05
    assert (later < 0.5).all(1).mean() > 0.05  # and some still go everywhere


def test_weights_take_back_what_breeding_has_favoured() -> None:
    design = bred_by_a_corner(3000, correct=True, uniform=(0.4, 0.3), sigma=0.1)
    decisions = [design.decisions.all()[id] for id in range(3000)]
    weights = np.array([decision.weight for decision in decisions])
    assert weights.max() <= 1 / 0.3
    assert weights.min() < 0.2
    points = np.array([decision.parameters for decision in decisions])
    assert abs(weights.mean() - 1) < 3.5 * weights.std() / np.sqrt(3000)
    for values, prior in ((points[:, 0], 1 / 2), (points[:, 0] * points[:, 1], 1 / 4)):
        error = (weights * values).std() / np.sqrt(3000)
        assert abs((weights * values).mean() - prior) < 3.5 * error
        assert abs(values.mean() - prior) > 7 * error


def test_losses_are_weighted_only_if_that_is_set() -> None:
    for correct in (False, True):
        design = bred_by_a_corner(400, correct=correct)
        weights = [decision.weight for decision in design.decisions.all().values()]
        ids = np.array([5, np.argmin(weights), 5, np.argmax(weights)])
        losses = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
        weighted = design.weigh(ids, losses)
        weighted.sum().backward()
        expected = [design.decisions.all()[id].weight for id in ids.tolist()]
        assert (np.min(expected) < 1) == correct
        assert losses.grad is not None
        np.testing.assert_allclose(losses.grad, expected, rtol=1e-6)


def test_the_training_loop_uses_the_weights_and_tells_the_losses() -> None:
    samples, moved = make_samples(5), {}
    for correct in (False, True):
        surrogate, ledger, decisions = surrogate_of_seed_0(), Ledger(60, 1), Decisions()
        decisions.decide(0, Decision(np.zeros(2), None, weight=0.25))
        design = make(decisions=decisions, correct=correct)
        settings = TrainerSettings(optimiser="sgd", learning_rate=0.1, steps=1)
        device, source = torch.device("cpu"), StreamSource(filled(samples), ledger, 5)
        trainer = Trainer(surrogate, settings, device, source, ledger, design.weigh)
        before = surrogate.tensors()
        trainer.train(statistics_of(samples), lambda: None)
        after = surrogate.tensors()
        names = [name for name, _ in surrogate.named_parameters()]
        moved[correct] = torch.cat([(after[name] - before[name]).flatten() for name in names])
        simulations, scores = design.losses.scores()
        assert simulations.tolist() == [0]
        assert scores[0] > 0
    assert moved[False].abs().max() > 0
    torch.testing.assert_close(moved[True], 0.25 * moved[False], atol=1e-7, rtol=1e-4)


def test_a_decision_is_a_function_of_seed_id_and_losses() -> None:
    first, same, other_seed = make(), make(), make(seed=4)
    for design in (first, same, other_seed):
        for id in range(20):
            design.start(id)
        tell(design, {id: float(id) for id in range(20)})
    made = [design.start(500).parameters for design in (first, same, other_seed)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    tell(first, dict.fromkeys(range(20), 1.0) | {0: 1000.0})
    np.testing.assert_array_equal(first.start(500).parameters, made[0])  # it stays what it was
    assert first.start(500).seed == first.training(500).seed == same.training(500).seed
    with pytest.raises(LookupError, match="simulation 501 are not decided yet"):
        first.training(501)


def test_the_latest_losses_are_remembered() -> None:
    losses = RecentLosses(window=6, batch_size=3)
    assert losses.scores()[0].size == 0
    losses.add(np.array([7, 8, 9]), torch.tensor([0.0, 0.0, 3.0]))
    losses.add(np.array([7, 8, 9]), torch.tensor([1.0, 1.0, 1.0]))  # tells nothing
    simulations, scores = losses.scores()
    np.testing.assert_array_equal(simulations, [7, 8, 9])
    np.testing.assert_allclose(scores, [0, 0, np.sqrt(2) / 2])
    for _ in range(5):
        losses.add(np.array([4, 2, 2]), torch.tensor([2.0, 0.0, np.nan]))  # nor does this
    losses.add(np.array([4, 2, 2]), torch.tensor([2.0, 0.0, 1.0]))
    simulations, scores = losses.scores()
    np.testing.assert_array_equal(simulations, [2, 4])
    np.testing.assert_allclose(scores, [0, np.sqrt(3 / 2) / 2])
    again = RecentLosses(window=6, batch_size=3)
    again.load_state(losses.state())
    np.testing.assert_array_equal(again.scores()[1], scores)


def test_what_was_decided_is_kept() -> None:
    design = bred_by_a_corner(100, correct=True)
    decisions, again = design.decisions, Decisions()
    again.load_state(decisions.state())
    assert again.all().keys() == set(range(100))
    for id, decision in decisions.all().items():
        found = again.decision(id)
        assert found is not None
        np.testing.assert_array_equal(found.parameters, decision.parameters)
        assert (found.parent, found.weight) == (decision.parent, decision.weight)
    with pytest.raises(ValueError, match="simulation 7 was decided before"):
        again.decide(7, Decision(np.zeros(2), None))


def test_what_was_decided_is_read_back_from_its_file(tmp_path: Path) -> None:
    design, path = make(SPACE, correct=True), tmp_path / "design.csv"
    design.start(0)
    design.keep(path, held_out=2)
    for id in range(1, 20):
        design.start(id)
    tell(design, {id: float(id) for id in range(20)})
    for id in range(20, 40):
        design.start(id)
    assert [int(row["simulation"]) for row in rows(path)] == list(range(-2, 40))
    with path.open("a") as file:
        file.write("40,12345,3")  # killed over it
    again = make(SPACE, correct=True)
    again.decisions.load(path, SPACE.names)
    again.keep(path, held_out=2)
    again.start(40)
    assert [int(row["simulation"]) for row in rows(path)] == list(range(-2, 41))
    for id, decision in design.decisions.all().items():
        found = again.decisions.all()[id]
        np.testing.assert_array_equal(found.parameters, decision.parameters)
        assert (found.parent, found.weight) == (decision.parent, decision.weight)
        assert int(rows(path)[id + 2]["seed"]) == design.training(id).seed
    assert {row["parent"] for row in rows(path)[22:]} > {""}
    path.write_text(path.read_text().replace("\n5,", "\nfive,"))
    with pytest.raises(StudyError, match=r"design\.csv is damaged where .* simulation five"):
        Decisions().load(path, SPACE.names)


def test_a_killed_run_goes_on_with_what_was_decided(tmp_path: Path, on_cluster: None) -> None:
    breed = ["design.sampler=breed", "design.breed.window=300", "design.simulations=120"]
    held = [*held_in(tmp_path), "solver.free_groups=25"]
    often = "checkpoint.every_seconds=0.001"
    settings = once(*SMALL, *held, *breed, "buffer.replay=[4, 8]", often)
    process = subprocess.Popen(
        [MILLSTREAM, "train", str(QUICKSTART), *settings],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=with_support(),
    )
    run = tmp_path / "runs/small"

    def far_enough() -> bool:
        checkpoints = any(int(path.name) >= 2 for path in (run / "checkpoints").glob("[0-9]*"))
        return checkpoints and any(row["parent"] for row in rows(run / "design.csv"))

    until(far_enough, process)
    process.kill()
    process.communicate()
    let_go(tmp_path)
    decided = rows(run / "design.csv")
    assert len(decided) < 4 + 120

    other = in_process(tmp_path, "train", str(QUICKSTART), *settings)
    assert other.returncode == 2
    assert "is one that another run has bred: set store.path to another place" in other.stderr
    assert not (tmp_path / "runs/small-2").exists()

    ran = in_process(tmp_path, "resume", "runs/small", "--json")
    assert ran.returncode == 0, ran.stderr
    summary = the_object(ran.stdout)
    assert summary["simulations"] == {"requested": 120, "completed": 120, "quarantined": 0}
    assert summary["samples"]["unique_trained"] == summary["samples"]["stored"] == 1200
    assert 0 < summary["breeding"]["bred"] < 120
    assert summary["breeding"]["bred"] + summary["breeding"]["uniform"] == 120
    assert 0 < summary["breeding"]["seconds"] < summary["seconds"]
    assert summary["breeding"]["share"] == pytest.approx(
        summary["breeding"]["seconds"] / summary["seconds"]
    )
    in_the_end = rows(run / "design.csv")
    assert sorted(int(row["simulation"]) for row in in_the_end) == list(range(-4, 120))
    assert [row for row in in_the_end if row in decided] == decided
    with xarray.open_zarr(tmp_path / "stores/small.zarr") as store:
        for row in in_the_end[4:]:
            stored = store.parameters.sel(simulation=int(row["simulation"]))
            for name in ("initial", "left", "right", "bottom", "top"):
                assert float(stored.sel(parameter=name)) == float(row[name])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["design.breed={sigma: 0.1}"], "breed was given, but sampler is sobol"),
        (["design.sampler=breed", "design.breed.sigma=0"], "design.breed.sigma is 0: input should"),
        (["design.sampler=breed", "design.breed.sigma=1.5"], "design.breed.sigma is 1.5: input sh"),
        (["design.sampler=breed", "design.breed.uniform=[0.5, 2]"], "design.breed.uniform"),
        (["design.sampler=breed", "design.breed.window=0"], "design.breed.window is 0: input shou"),
        (
            ["design.sampler=breed", "design.breed={correct: true, uniform: [1, 0]}"],
            "correct is true, but uniform is [1.0, 0.0]",
        ),
        (
            ["design.sampler=breed", "deterministic=true", "ensemble.actors=1"],
            "deterministic is true, but design.sampler is breed",
        ),
        (
            ["design.sampler=breed", "training.source=some.zarr"],
            "design.sampler is breed, but training.source names a store",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    ran = in_process(tmp_path, "train", str(QUICKSTART), *once(*SMALL, *overrides))
    assert ran.returncode == 2
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_training_nothing_can_be_bred(tmp_path: Path) -> None:
    overrides = ["design.sampler=breed"]
    ran = in_process(tmp_path, "simulate", str(QUICKSTART), *once(*SMALL, *overrides))
    assert ran.returncode == 2
    assert "design.sampler is breed, but nothing is trained" in ran.stderr
    assert not list(tmp_path.iterdir())
