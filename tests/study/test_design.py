"""Parameters and seeds are a pure function of the study and the simulation's id."""

import numpy as np
import pytest
from scipy.stats import qmc

from framework.study.design import Design
from framework.study.sections import BreedConfig, DesignConfig
from solvers.base import Parameter, ParameterSpace

SPACE = ParameterSpace(
    Parameter("a", 100.0, 500.0, "K"),
    Parameter("b", 1e-4, 1e-1, prior="log_uniform"),
    Parameter("c", -1.0, 1.0),
)
SAMPLERS = ["monte_carlo", "halton", "sobol", "latin_hypercube"]
GROWING = SAMPLERS[:3]


def design(sampler: str, simulations: int = 64, seed: int = 3, **options: object) -> Design:
    config = {"sampler": sampler, "simulations": simulations, **options}
    return Design(DesignConfig.model_validate(config), SPACE, seed)


def unit(made: Design, count: int) -> np.ndarray:
    """The first points mapped back to the unit cube."""
    points = np.array([made.training(id).parameters for id in range(count)])
    points[:, 0] = (points[:, 0] - 100) / 400
    points[:, 1] = np.log(points[:, 1] / 1e-4) / np.log(1e3)
    points[:, 2] = (points[:, 2] + 1) / 2
    return points


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_order_and_history_do_not_matter(sampler: str) -> None:
    forwards, backwards = design(sampler), design(sampler)
    expected = [forwards.training(id) for id in range(64)]
    for id in reversed(range(64)):
        simulation = backwards.training(id)
        np.testing.assert_array_equal(simulation.parameters, expected[id].parameters)
        assert simulation.seed == expected[id].seed
        assert simulation.id == id


@pytest.mark.parametrize("sampler", GROWING)
def test_a_longer_design_begins_with_the_same_simulations(sampler: str) -> None:
    short, long = design(sampler, simulations=10), design(sampler, simulations=1000)
    for id in (0, 9, 10, 500):
        np.testing.assert_array_equal(short.training(id).parameters, long.training(id).parameters)
        assert short.training(id).seed == long.training(id).seed


def test_a_latin_hypercube_cannot_grow_and_says_so() -> None:
    with pytest.raises(ValueError, match="Latin hypercube of 64 simulations cannot grow to 65"):
        design("latin_hypercube").training(64)


def test_a_latin_hypercube_has_one_point_in_every_stratum() -> None:
    strata = np.sort((unit(design("latin_hypercube"), 64) * 64).astype(int), axis=0)
    np.testing.assert_array_equal(strata, np.arange(64)[:, None].repeat(3, axis=1))


def test_what_is_bred_is_decided_by_a_run_and_the_rest_is_as_ever() -> None:
    bred, sobol = design("breed"), design("sobol")
    assert bred.config.breed == design("breed", breed=None).config.breed == BreedConfig()
    assert sobol.config.breed is None
    with pytest.raises(LookupError, match="simulation 3 are decided by a run"):
        bred.training(3)
    np.testing.assert_array_equal(bred.even(3), sobol.training(3).parameters)
    np.testing.assert_array_equal(bred.held_out(3).parameters, sobol.held_out(3).parameters)


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
def test_sequences_fill_the_cube_more_evenly_than_chance(sampler: str) -> None:
    random = qmc.discrepancy(unit(design("monte_carlo"), 64))
    assert qmc.discrepancy(unit(design(sampler), 64)) < random / 4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_of_studies_and_simulations_differ(sampler: str) -> None:
    first, second = design(sampler, seed=1), design(sampler, seed=2)
    assert not np.array_equal(first.training(0).parameters, second.training(0).parameters)
    seeds = {first.training(id).seed for id in range(64)}
    seeds |= {first.held_out(index).seed for index in range(64)}
    seeds |= {second.training(id).seed for id in range(64)}
    assert len(seeds) == 3 * 64


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_held_out_parameters_are_never_trained_on(sampler: str) -> None:
    made = design(sampler, simulations=500)
    training = {tuple(made.training(id).parameters) for id in range(500)}
    held_out = {tuple(made.held_out(index).parameters) for index in range(50)}
    assert not training & held_out
    assert len(held_out) == 50
    assert {made.held_out(index).id for index in range(50)} == set(range(-50, 0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bounds_of_the_study_replace_the_solvers(sampler: str) -> None:
    made = design(sampler, bounds={"a": [200, 210]})
    drawn = np.array([made.training(id).parameters for id in range(64)])
    held_out = np.array([made.held_out(index).parameters for index in range(64)])
    for points in (drawn, held_out):
        assert points[:, 0].min() >= 200
        assert points[:, 0].max() <= 210
        assert points[:, 2].min() < -0.8
        assert points[:, 2].max() > 0.8
