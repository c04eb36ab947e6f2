"""Surrogates: what they depend on, their normalisation, their loss, saving them, and that they
learn."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import MODES, fields_normaliser, make_data, make_problem, predict
from neuralop.models import FNO
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from surrogates.base import Mode, Problem, Surrogate
from surrogates.fno import Fno
from surrogates.message_passing import MessagePassing
from surrogates.mlp import Mlp
from surrogates.unet import UNet

torch.set_num_threads(1)
KINDS = {
    "mlp": partial(Mlp, hidden=(32,)),
    "fno": partial(Fno, modes=4, hidden_channels=6, layers=2),
    "unet": partial(UNet, hidden_channels=4, levels=1),
    "message_passing": partial(MessagePassing, hidden=8, layers=2),
}
GRIDS = [(8,), (8, 6), (4, 6, 5)]


def make(kind: str, problem: Problem, mode: Mode, seed: int = 0) -> Surrogate:
    torch.manual_seed(seed)
    surrogate: Surrogate = KINDS[kind](problem, mode)
    return surrogate


class Recorder(Surrogate):
    """Keeps the conditions it is given and says 0."""

    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        self.given = conditions
        return state.new_zeros(len(state), self.problem.channels, *self.problem.grid)


def conditions(problem: Problem, mode: Mode, parameters: list[float], times: list[float]) -> Tensor:
    recorder = Recorder(problem, mode)
    fields = torch.zeros(1, len(times), problem.channels, *problem.grid)
    recorder.losses(torch.tensor([parameters]), torch.tensor([times]), fields)
    return recorder.given[0].double()


def test_the_default_mlp_has_the_layers_of_the_papers_heat_study() -> None:
    problem = make_problem((64, 64), low=(100.0,) * 5, high=(500.0,) * 5, log=(False,) * 5)
    layers = [layer for layer in Mlp(problem).modules() if isinstance(layer, nn.Linear | nn.ReLU)]
    shapes = [(6, 256), "relu", (256, 256), "relu", (256, 64 * 64)]
    assert shapes == [
        (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else "relu"
        for layer in layers
    ]


@pytest.mark.parametrize("static", [0, 2])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_depends_on_all_it_is_given(
    kind: str, mode: Mode, grid: tuple[int, ...], channels: int, static: int
) -> None:
    problem = make_problem(grid, channels, static)
    surrogate = make(kind, problem, mode)
    parameters, times, fields = make_data(problem)
    initial = fields[:, 0].float()
    found = predict(surrogate, parameters, times, initial)
    assert found.shape == (3, 4, channels, *grid)
    assert found.isfinite().all()

    def changed(prediction: Tensor) -> list[bool]:
        """Per time. The samples do not influence each other: only the first was changed."""
        assert torch.equal(prediction[1:], found[1:])
        return [not torch.equal(a, b) for a, b in zip(prediction[0], found[0], strict=True)]

    first, later = (mode == "direct", True)
    for column in range(2):
        other = parameters.clone()
        other[0, column] *= 1.1
        assert changed(predict(surrogate, other, times, initial)) == [first, later, later, later]
    other = times.clone()
    other[0, 2] += 0.05
    expected = [False, False, True, mode == "autoregressive"]
    assert changed(predict(surrogate, parameters, other, initial)) == expected
    for channel in range(channels):
        other = initial.clone()
        other[0, channel, ..., 3] += 1
        expected = [mode == "autoregressive"] * 4
        assert changed(predict(surrogate, parameters, times, other)) == expected
    if mode == "autoregressive":
        assert torch.equal(found[:, 0], initial)
    elsewhere = make(kind, make_problem(grid, channels, static, static_seed=1), mode)
    moved = predict(elsewhere, parameters, times, initial)
    assert torch.equal(moved, found) == (static == 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_is_the_one_step_prediction_repeated(kind: str, mode: Mode) -> None:
    problem = make_problem((8, 6), channels=2, static=1)
    surrogate = make(kind, problem, mode)
    surrogate.normalise_fields(torch.tensor([3.0, 2.0]), torch.ones(2), torch.tensor([0.3, 0.1]))
    parameters, times, fields = make_data(problem)
    found = predict(surrogate, parameters, times, fields[:, 0].float())
    for step in range(surrogate.window - 1, times.shape[1]):
        window = slice(step + 1 - surrogate.window, step + 1)
        single = predict(surrogate, parameters, times[:, window], found[:, window.start])
        torch.testing.assert_close(found[:, step], single[:, -1], rtol=1e-5, atol=1e-5)
        # The loss is that of this prediction: there is none where it is right.
        right, wrong = found[:, window].clone(), found[:, window].clone()
        wrong[:, -1] += 0.01
        assert (surrogate.losses(parameters, times[:, window], right) < 1e-8).all()
        assert (surrogate.losses(parameters, times[:, window], wrong) > 1e-5).all()


def test_a_direct_rollout_predicts_several_times_at_once_in_bounded_memory() -> None:
    problem = make_problem((64, 64))
    surrogate = make("mlp", problem, "direct")
    parameters, times, fields = make_data(problem, n=1, steps=10)
    batches: list[int] = []
    surrogate.register_forward_hook(lambda _, inputs, output: batches.append(len(output)))
    found = predict(surrogate, parameters, times, fields[:, 0])
    assert batches == [4, 4, 2]
    single = torch.stack([surrogate.direct(parameters, time) for time in times.unbind(1)], 1)
    torch.testing.assert_close(found, single, rtol=1e-5, atol=1e-5)


def test_an_autoregressive_rollout_to_one_time_is_the_initial_state() -> None:
    problem = make_problem()
    parameters, times, fields = make_data(problem, steps=1)
    found = predict(make("mlp", problem, "autoregressive"), parameters, times, fields[:, 0])
    assert torch.equal(found, fields)


bound = st.floats(1e-3, 1e3)


@given(low=bound, width=bound, log=st.booleans(), start=bound, duration=bound)
def test_conditions_are_scaled_by_their_bounds(
    low: float, width: float, log: bool, start: float, duration: float
) -> None:
    problem = make_problem(
        low=(low,), high=(low + width,), log=(log,), times=(start, start + duration)
    )
    middle = np.sqrt(low * (low + width)) if log else low + width / 2
    for part, parameter in ((-1, low), (0, middle), (1, low + width)):
        time = start + duration * (part + 1) / 2
        found = conditions(problem, "direct", [parameter], [time])
        # As exactly as a number in single precision says where it lies between the bounds.
        near = 1e-6 + 1e-6 * (low + width) / width, 1e-6 + 1e-6 * (start + duration) / duration
        assert abs(found[0] - part) < near[0]
        assert abs(found[1] - part) < near[1]


def test_the_step_to_the_next_time_is_scaled_by_its_range() -> None:
    problem = make_problem(times=(0.0, 2.0), steps=(0.1, 0.5))
    found = [
        conditions(problem, "autoregressive", [1.0, 1.0], [1.0, 1.0 + step])
        for step in (0.1, 0.3, 0.5)
    ]
    expected = torch.tensor([[-1.0, 0, 0, -1], [-1, 0, 0, 0], [-1, 0, 0, 1]]).double()
    torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("end", [1e-9, 0.5, 1e10])
def test_a_constant_step_is_a_constant_condition_in_any_units(end: float) -> None:
    """The steps of equidistant times differ in their last digits, which must not be amplified."""
    times = np.linspace(0, end, 20)
    steps = float(np.diff(times).min()), float(np.diff(times).max())
    assert steps[0] < steps[1]
    problem = make_problem(times=(0, end), steps=steps)
    found = torch.stack(
        [
            conditions(problem, "autoregressive", [1.0, 1.0], times[i : i + 2].tolist())[3]
            for i in range(19)
        ]
    )
    assert found.abs().max() <= 1 + 1e-4
    assert found.max() - found.min() < 1e-4


def test_conditions_resolve_whatever_single_precision_parameters_do() -> None:
    problem = make_problem(low=(1e6, 1e6), high=(1e6 + 1, 1e6 + 1), log=(False, True))
    values = np.float32(1e6) + np.arange(17, dtype=np.float32) / 16  # neighbouring numbers
    found = torch.stack(
        [conditions(problem, "direct", [float(v), float(v)], [0.5]) for v in values]
    )
    expected = torch.linspace(-1, 1, 17, dtype=torch.float64)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, 1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-13, 0.0), (0.5, 1e5)])
def test_static_fields_are_normalised_in_any_units(scale: float, offset: float) -> None:
    pattern = np.random.default_rng(0).integers(-8, 9, (2, 40, 50)).astype(np.float64)
    values = (offset + scale * pattern).astype(np.float32)  # exact
    values[1] = 0.1 * scale + offset  # constant, and no binary fraction
    problem = Problem(("p",), (0.0,), (1.0,), (False,), (0, 1), (0.1, 0.2), 1, (40, 50), values)
    found = Recorder(problem, "direct").static
    expected = (pattern[0] - pattern[0].mean()) / pattern[0].std()
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-4)
    assert torch.equal(found[1], torch.zeros(40, 50))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1000.0), (30.0, 300.0), (1e-9, 0.0)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_units_of_the_fields_do_not_matter(
    kind: str, mode: Mode, scale: float, offset: float
) -> None:
    problem = make_problem((8, 6), channels=2)
    surrogate = make(kind, problem, mode)
    parameters, times, fields = make_data(problem, steps=surrogate.window)
    other = scale * fields + offset
    surrogate.normalise_fields(*fields_normaliser(fields))
    loss = surrogate.losses(parameters, times, fields.float())
    found = predict(surrogate, parameters, times, fields[:, 0].float())
    surrogate.normalise_fields(*fields_normaliser(other))
    other_loss = surrogate.losses(parameters, times, other.float())
    other_found = predict(surrogate, parameters, times, other[:, 0].float())
    torch.testing.assert_close(other_loss, loss, rtol=1e-3, atol=0)
    torch.testing.assert_close((other_found - offset) / scale, found, rtol=0, atol=2e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 300.0])
@pytest.mark.parametrize("mode", MODES)
def test_a_field_that_never_varies_is_learned_too(mode: Mode, value: float) -> None:
    problem = make_problem(channels=2)
    surrogate = make("mlp", problem, mode)
    parameters, times, fields = make_data(problem, steps=surrogate.window)
    fields[:, :, 1] = value
    surrogate.normalise_fields(*fields_normaliser(fields.float()))
    loss = surrogate.losses(parameters, times, fields.float()).mean()
    assert 0.1 < loss < 10
    constant = predict(surrogate, parameters, times, fields[:, 0].float())[:, -1, 1]
    assert (constant - value).abs().max() < 3


def mlp_losses_by_hand(
    surrogate: Surrogate, data: tuple[Tensor, Tensor, Tensor]
) -> NDArray[np.float64]:
    """The losses of an `Mlp` for the problem below, in plain numpy."""
    p, t, u = (tensor.numpy().astype(np.float64) for tensor in data)
    columns = [p[:, 0] - 2, np.log10(p[:, 1]), 2 * t[:, 0] - 1]
    std, change = np.array([2.0, 4.0])[:, None, None], np.array([0.5, 0.25])[:, None, None]
    normal = (u - np.array([3.0, 2.0])[:, None, None]) / std
    inputs, target = [], normal[:, -1]
    if surrogate.mode == "autoregressive":
        columns.append((t[:, 1] - t[:, 0] - 0.25) / 0.15)
        target = (u[:, 1] - u[:, 0]) / change
        inputs.append(normal[:, 0].reshape(len(u), -1))
    static = surrogate.problem.static.reshape(1, -1)
    x = np.concatenate([np.stack(columns, 1), *inputs, static.repeat(len(u), 0)], 1)
    layers = [layer for layer in surrogate.modules() if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers):
        x = np.maximum(x, 0) if number else x
        x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    return np.asarray(((x - target.reshape(len(u), -1)) ** 2).mean(1))


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_that_of_an_independent_computation(mode: Mode) -> None:
    """In double precision throughout: it agrees to 12 digits."""
    normal = np.ones((2, 4, 3), dtype=np.float32)
    normal[0, :2] = normal[1, ::2] = -1  # mean 0 and standard deviation 1
    problem = replace(make_problem((4, 3), channels=2, static=2), static=normal)
    surrogate = make("mlp", problem, mode).double()
    surrogate.normalise_fields(
        torch.tensor([3.0, 2.0]), torch.tensor([2.0, 4.0]), torch.tensor([0.5, 0.25])
    )
    data = make_data(surrogate.problem, steps=surrogate.window)
    losses = surrogate.losses(*data)
    assert losses.dtype == torch.float64
    np.testing.assert_allclose(
        losses.detach(), mlp_losses_by_hand(surrogate, data), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_the_loss_are_those_of_finite_differences(mode: Mode) -> None:
    class Loss(nn.Module):
        def __init__(self, surrogate: Surrogate) -> None:
            super().__init__()
            self.surrogate = surrogate

        def forward(self, *data: Tensor) -> Tensor:
            return self.surrogate.losses(*data)

    torch.manual_seed(0)
    surrogate = Mlp(make_problem((3,), channels=2, static=1), mode, hidden=(4, 4)).double()
    data = make_data(surrogate.problem, steps=surrogate.window)
    loss = Loss(surrogate)
    names, weights = zip(*loss.named_parameters(), strict=True)

    def of_weights(*values: Tensor) -> Tensor:
        return functional_call(loss, dict(zip(names, values, strict=True)), data)  # type: ignore

    assert torch.autograd.gradcheck(of_weights, weights)


def test_tensors_are_a_copy() -> None:
    surrogate = make("mlp", make_problem(), "direct")
    tensors = surrogate.tensors()
    assert set(tensors) == set(surrogate.state_dict())
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for tensor in surrogate.state_dict().values():
            tensor.fill_(7)
    assert all(torch.equal(tensors[name], saved[name]) for name in saved)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", GRIDS)
def test_an_fno_is_neuraloperators(grid: tuple[int, ...], mode: Mode) -> None:
    """The channels are the conditions, then the current fields, then the static fields."""
    surrogate = make("fno", make_problem(grid, channels=2, static=1), mode)
    current = 2 if mode == "autoregressive" else 0
    inputs = 3 + (mode == "autoregressive") + current + 1
    by_hand = FNO((4,) * len(grid), inputs, 2, hidden_channels=6, n_layers=2)
    by_hand.load_state_dict(surrogate.get_submodule("network").state_dict())
    random = np.random.default_rng(0)
    conditions = random.normal(size=(2, inputs - current - 1)).astype(np.float32)
    state = random.normal(size=(2, current + 1, *grid)).astype(np.float32)
    channels = np.empty((2, inputs, *grid), dtype=np.float32)
    for column in range(conditions.shape[1]):
        for sample in range(2):
            channels[sample, column] = conditions[sample, column]
    channels[:, conditions.shape[1] :] = state
    with torch.no_grad():
        found = surrogate(torch.tensor(conditions), torch.tensor(state))
        assert torch.equal(found, by_hand(torch.tensor(channels)))


def test_more_fourier_modes_than_the_grid_has_are_refused() -> None:
    Fno(make_problem((8, 6)), modes=6, hidden_channels=4, layers=1)
    with pytest.raises(ValueError, match=r"modes is 7, but a grid of \(8, 6\) has at most 6 "):
        Fno(make_problem((8, 6)), modes=7)


def wave(parameters: Tensor, times: Tensor) -> Tensor:
    """amplitude * exp(-rate t) * sin(2 pi x) + 300, as fields [n, w, 1, 16]."""
    x = torch.linspace(0, 1, 17)[:-1]
    amplitude, rate = parameters[:, :1, None, None], parameters[:, 1:, None, None]
    decay = amplitude * torch.exp(-rate * times[:, :, None, None])
    return decay * torch.sin(2 * torch.pi * x) + 300


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_decaying_wave_is_learned(kind: str, mode: Mode) -> None:
    problem = make_problem((16,), low=(1.0, 0.5), high=(2.0, 2.0), log=(False, True))
    surrogate = make(kind, problem, mode)
    generator = torch.Generator().manual_seed(0)

    def draw(n: int, steps: int) -> tuple[Tensor, Tensor]:
        unit = torch.rand(n, 3, generator=generator)
        parameters = torch.stack([1 + unit[:, 0], 0.5 * 4 ** unit[:, 1]], 1)
        times = 0.6 * unit[:, 2:] * (steps == 2) + 0.2 * torch.arange(steps)
        return parameters, times + (unit[:, 2:] if steps == 1 else 0)

    parameters, times = draw(1000, surrogate.window)
    surrogate.normalise_fields(*fields_normaliser(wave(parameters, times)))
    optimiser = torch.optim.Adam(surrogate.parameters(), lr=0.01)
    for _ in range(300):
        parameters, times = draw(32, surrogate.window)
        fields = wave(parameters, times)
        loss = surrogate.losses(parameters, times, fields).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.02
    parameters, times = draw(50, 5)
    truth = wave(parameters, times)
    found = predict(surrogate, parameters, times, truth[:, 0])
    assert (found - truth).square().mean() < 0.01 * (truth - 300).square().mean()
