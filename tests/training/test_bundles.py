"""Surrogates that predict several steps at once, and the pushforward."""

from functools import partial

import pytest
import torch
from networks import fields_normaliser, make_data, make_problem, predict
from torch import Tensor

from surrogates.base import Mode, Problem, Surrogate
from surrogates.message_passing import MessagePassing

torch.set_num_threads(1)
BUNDLE = 3
CHANGE = torch.tensor([[0.5, 0.25], [1.0, 0.5], [2.0, 0.75]])


class Zero(Surrogate):
    """Says that nothing changes, and keeps the conditions it is given."""

    def __init__(self, problem: Problem, mode: Mode = "autoregressive", bundle: int = 1) -> None:
        super().__init__(problem, mode, bundle)

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        self.given = conditions
        channels = self.bundle * self.problem.channels
        return state.new_zeros(len(state), channels, *self.problem.grid)


def make(pushforward: bool = False) -> Surrogate:
    torch.manual_seed(0)
    problem = make_problem((5,), channels=2, static=1)
    surrogate = MessagePassing(problem, "autoregressive", BUNDLE, pushforward, hidden=6, layers=1)
    surrogate.double().normalise_fields(torch.tensor([3.0, 2.0]), torch.ones(2), CHANGE)
    return surrogate


def data_of(surrogate: Surrogate, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    parameters, times, fields = make_data(surrogate.problem, n=3, steps=steps)
    return parameters.double(), times.double(), fields.double()


same = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", range(BUNDLE + 1, 3 * BUNDLE + 2))
def test_a_rollout_is_bundle_after_bundle_and_the_last_ends_with_the_times(steps: int) -> None:
    surrogate = make()
    parameters, times, fields = data_of(surrogate, steps)
    found = predict(surrogate, parameters, times, fields[:, 0])
    expected = [fields[:, 0]]
    for first in range(0, steps - 1, BUNDLE):
        start = min(first, steps - 1 - BUNDLE)
        part = times[:, start : start + BUNDLE + 1]
        bundle = predict(surrogate, parameters, part, expected[start])
        expected += bundle[:, len(expected) - start :].unbind(1)
    same(found, torch.stack(expected, 1))


@pytest.mark.parametrize("steps", range(1, BUNDLE + 1))
def test_a_rollout_shorter_than_a_bundle_goes_on_with_the_last_step(steps: int) -> None:
    surrogate = make()
    parameters, times, fields = data_of(surrogate, steps)
    found = predict(surrogate, parameters, times, fields[:, 0])
    assert found.shape == fields.shape
    last = times.diff(dim=1)[:, -1:] if steps > 1 else torch.ones(3, 1)
    longer = torch.cat([times, times[:, -1:] + last * torch.arange(1, BUNDLE + 2 - steps)], 1)
    same(found, predict(surrogate, parameters, longer, fields[:, 0])[:, :steps])


def test_every_step_of_a_bundle_counts_and_those_after_it_do_not() -> None:
    surrogate = make(pushforward=True).eval()
    parameters, times, fields = data_of(surrogate, surrogate.window)
    assert surrogate.window == 1 + 2 * BUNDLE
    right = predict(surrogate, parameters, times, fields[:, 0])
    assert (surrogate.losses(parameters, times, right) < 1e-20).all()
    for step in range(1, surrogate.window):
        wrong = right.clone()
        wrong[:, step] += 0.1
        assert (surrogate.losses(parameters, times, wrong) > 1e-5).all() == (step <= BUNDLE)


def test_changes_are_in_units_of_their_size_over_so_many_steps() -> None:
    surrogate = Zero(make_problem((5,), channels=2), bundle=BUNDLE).double()
    surrogate.normalise_fields(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 4.0]), CHANGE)
    parameters, times, fields = data_of(surrogate, surrogate.window)
    changes = (fields[:, 1:] - fields[:, :1]) / CHANGE[:, :, None]
    same(surrogate.losses(parameters, times, fields), changes.square().mean((1, 2, 3)))


def test_the_steps_to_each_time_of_a_bundle_are_conditions() -> None:
    surrogate = Zero(make_problem(times=(0.0, 2.0), steps=(0.1, 0.5)), bundle=BUNDLE).double()
    times = torch.tensor([[1.0, 1.1, 1.6, 1.9]])
    surrogate.losses(torch.ones(1, 2), times, torch.zeros(1, 4, 1, 8))
    expected = torch.tensor([[-1.0, 0.0, 0.0, -1.0, 1.0, 0.0]]).double()
    torch.testing.assert_close(surrogate.given, expected, rtol=0, atol=1e-6)


def test_the_second_bundle_is_learned_from_what_was_made_of_the_first() -> None:
    """By chance; and no gradient flows into the first."""
    surrogate = make(pushforward=True)
    data = parameters, times, fields = data_of(surrogate, surrogate.window)

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, [*surrogate.parameters()])]
        )

    surrogate.eval()
    plain = surrogate.losses(*data)
    second = fields[:, BUNDLE:].clone()
    second[:, 0] = predict(surrogate, parameters, times[:, : BUNDLE + 1], fields[:, 0])[:, -1]
    rest = torch.cat([second, second[:, 1:]], 1)  # of the length of a window
    pushed = surrogate.losses(parameters, torch.cat([times[:, BUNDLE:]] * 2, 1), rest)
    expected = gradient(pushed.mean())
    surrogate.train()
    torch.manual_seed(0)
    drawn = [surrogate.losses(*data) for _ in range(100)]
    pushes = [losses for losses in drawn if not torch.equal(losses, plain)]
    assert 30 < len(pushes) < 70
    same(pushes[0], pushed)
    same(gradient(pushes[0].mean()), expected)


def test_the_pushforward_leaves_bfloat16_its_gradients() -> None:
    """What autocast has cast without gradient must not be used again."""
    surrogate = make(pushforward=True).float()
    data = make_data(surrogate.problem, steps=surrogate.window)
    norms = []
    for seed in range(10):
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16):
            loss = surrogate.losses(*data).mean()
        gradients = torch.autograd.grad(loss, [*surrogate.parameters()], allow_unused=True)
        assert all(gradient is not None for gradient in gradients)
        norms.append(float(loss.detach()))
    assert len({round(norm, 6) for norm in norms}) > 1


def test_in_mode_direct_there_is_no_bundle() -> None:
    problem = make_problem((5,), channels=2)
    surrogate = MessagePassing(problem, "direct", bundle=4, pushforward=True, hidden=4, layers=1)
    assert (surrogate.window, surrogate.bundle, surrogate.pushforward) == (1, 1, False)
    data = make_data(problem, steps=1)
    surrogate.normalise_fields(*fields_normaliser(data[2]))
    assert surrogate.losses(*data).shape == (3,)
