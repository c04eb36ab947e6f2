"""The interface of a surrogate.

Shapes: n samples, p parameters, C fields (channels), S static fields, T stored times, w stored
steps in a sample (the window), K steps predicted at once (the bundle), k conditions, s channels of
state, `*grid` the grid's axes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from surrogates.cost import Cost, counted, counted_flops
from surrogates.problem import Mode, Problem

# What a surrogate of one's own imports.
__all__ = ["Mode", "Problem", "Surrogate"]
# A rollout in mode `direct` predicts several times at once, of so many grid points in all: a small
# network's time goes into the calls, and a large one's memory is bounded.
_POINTS_AT_ONCE = 2**14


class Surrogate(nn.Module, ABC):
    """A network with its normalisation. A subclass writes a constructor and `forward`.

    In mode `direct` it maps (parameters, time) to the fields at that time. In mode `autoregressive`
    it maps the fields at one stored time, with (parameters, time, steps between the next times), to
    the fields at the next K times: the network's output is the change, in units of its typical size
    over so many steps. K is 1 unless the subclass asks for a bundle.

    The constructor takes the problem, the mode, and then its own options, which are the surrogate's
    settings in a study and are checked against their annotations.
    """

    # The precisions that `training.precision` may ask of this surrogate.
    precisions: tuple[str, ...] = ("float32", "float64", "bfloat16")

    low: Tensor
    high: Tensor
    log: Tensor
    static: Tensor
    field_mean: Tensor
    field_scale: Tensor
    step_scale: Tensor

    def __init__(
        self, problem: Problem, mode: Mode, bundle: int = 1, pushforward: bool = False
    ) -> None:
        """`bundle` is K. `pushforward`: learn from the network's own predictions, too.

        With `pushforward` a sample holds two bundles, and every other optimiser step, by chance,
        trains on the second, starting from the network's prediction of the first (Brandstetter,
        Worrall and Welling 2022, arXiv 2202.03376). In mode `direct` there is neither.
        """
        super().__init__()
        self.problem = problem
        self.mode = mode
        self.bundle = 1 if mode == "direct" else bundle
        self.pushforward = pushforward and mode == "autoregressive"
        self.window = 1 if mode == "direct" else 1 + bundle * (2 if pushforward else 1)
        ranges = [*zip(problem.low, problem.high, strict=True), problem.times]
        log = [*problem.log, False]
        if mode == "autoregressive":
            shortest, longest = problem.steps
            # Steps between times in single precision are never quite equal: no difference to learn.
            constant = longest - shortest < 1e-3 * longest
            ranges += [(0.0, 2 * longest) if constant else problem.steps] * bundle
            log += [False] * bundle
        self.conditions = len(ranges)  # k
        self.state_channels = len(problem.static) + (
            problem.channels if mode == "autoregressive" else 0
        )  # s
        bounds = torch.tensor(ranges, dtype=torch.float64)
        is_log = torch.tensor(log)
        bounds = torch.where(is_log[:, None], bounds.clamp(min=1e-300).log(), bounds)
        self.register_buffer("low", bounds[:, 0])
        self.register_buffer("high", bounds[:, 1])
        self.register_buffer("log", is_log)
        static = torch.tensor(problem.static, dtype=torch.float64)
        if len(static):
            axes = tuple(range(1, static.ndim))
            mean = static.mean(axes, keepdim=True)
            spread = static.std(axes, keepdim=True, correction=0)
            # A constant field tells nothing: it becomes 0.
            spread = torch.where(spread > 1e-7 * mean.abs(), spread, torch.inf)
            static = (static - mean) / spread
        self.register_buffer("static", static.float())
        self.register_buffer("field_mean", torch.zeros(problem.channels))
        self.register_buffer("field_scale", torch.ones(problem.channels))
        self.register_buffer("step_scale", torch.ones(self.bundle, problem.channels))

    @property
    def given_times(self) -> int:
        """How many of the first stored times a rollout does not predict, as it is given them."""
        return 1 if self.mode == "autoregressive" else 0

    @abstractmethod
    def forward(self, conditions: Tensor, state: Tensor) -> Tensor:
        """Map normalised conditions [n, k] and state [n, s, *grid] to fields [n, K C, *grid].

        The fields are normalised, those of the next K times one after the other. The conditions are
        the parameters, the time and, if autoregressive, the K steps, each about in [-1, 1]. The
        state is the current fields (if autoregressive), then the static fields.
        """

    def normalise_fields(self, mean: Tensor, std: Tensor, change: Tensor) -> None:
        """Fix the normalisation by the statistics of the fields, in their units.

        `mean` [C], standard deviation `std` [C], and `change`, the root mean square change over 1
        to K steps [K, C], or [C] if it is the same for all.
        """
        # A field that never varied, or never changed, has nothing to scale by.
        std = torch.where(std > 1e-12 * mean.abs(), std, torch.ones_like(std))
        self.field_mean.copy_(mean)
        self.field_scale.copy_(std)
        self.step_scale.copy_(torch.where(change > 0, change / std, torch.ones_like(change)))

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and normalisation, copied to the CPU: the state of a trained surrogate."""
        # A state dict may hold more than tensors: neuraloperator adds metadata of its own.
        return {
            name: value.detach().cpu().clone()
            for name, value in self.state_dict().items()
            if isinstance(value, Tensor)
        }

    def losses(self, parameters: Tensor, times: Tensor, fields: Tensor) -> Tensor:
        """Return the mean squared error of each sample's output [n], in normalised units.

        Parameters [n, p], times [n, w] and fields [n, w, C, *grid] in physical units. While the
        module is in training mode, torch's global generator decides on the pushforward.
        """
        normal = self._normal(fields)
        if self.mode == "direct":
            target = normal
            output = self._output(self._conditions(parameters, times))
        else:
            start, current = 0, normal[:, 0]
            if self.pushforward and self.training and torch.rand(()) < 0.5:
                start = self.bundle
                current = self._pushed(parameters, times[:, : start + 1], current)
            later = slice(start + 1, start + self.bundle + 1)
            target = (normal[:, later] - current[:, None]) / self._by_field(self.step_scale)
            part = times[:, start : later.stop]
            output = self._output(self._conditions(parameters, part), current)
        return (output.to(target.dtype) - target).square().flatten(1).mean(1)

    def rollout(self, parameters: Tensor, times: Tensor, initial: Tensor) -> Iterator[Tensor]:
        """Yield the predicted fields [n, C, *grid] at each of the times [n, T], in physical units.

        Parameters [n, p]; initial [n, C, *grid] are the fields at the first time. An autoregressive
        surrogate starts from them, so its first prediction is exact; a direct one ignores them. A
        last bundle that would reach beyond the last time starts earlier, to end there.

        Gradients flow through all of it, except under `torch.no_grad()`.
        """
        n, stored = times.shape
        if self.mode == "direct":
            at_once = max(1, _POINTS_AT_ONCE // max(1, n * math.prod(self.problem.grid)))
            for some in torch.split(times, at_once, 1):
                fields = self.direct(parameters.repeat_interleave(some.shape[1], 0), some.flatten())
                yield from fields.view(*some.shape, *fields.shape[1:]).unbind(1)
            return
        yield initial
        last = stored - 1
        # No later start occurs in training, so a cut bundle would extrapolate in time.
        starts = [max(min(known, last - self.bundle), 0) for known in range(0, last, self.bundle)]
        if not starts:
            return
        conditions = self._conditions(
            parameters[:, None].expand(-1, len(starts), -1),
            times.unfold(1, min(self.bundle + 1, stored), 1)[:, starts],
        )
        states, known = self._normal(initial)[:, None], 0  # the fields up to the time `known`
        for start, condition in zip(starts, conditions.unbind(1), strict=True):
            states = self._advance(condition, states[:, start - known - 1])
            yield from self._physical(states[:, known - start : last - start]).unbind(1)
            known = start + self.bundle

    def advance(self, parameters: Tensor, times: Tensor, fields: Tensor) -> Tensor:
        """Return the fields [n, K, C, *grid] at the last K of the times [n, K + 1], with gradients.

        Parameters [n, p] and fields [n, C, *grid] at the first time, in physical units, as are the
        fields returned. Only for a surrogate in mode `autoregressive`.
        """
        conditions = self._conditions(parameters, times)
        return self._physical(self._advance(conditions, self._normal(fields)))

    def direct(self, parameters: Tensor, times: Tensor) -> Tensor:
        """Return fields [n, C, *grid] of parameters [n, p] at times [n], with gradients.

        They are in physical units. Only for a surrogate in mode `direct`.
        """
        return self._physical(self._output(self._conditions(parameters, times[:, None]))[:, 0])

    def cost(self, batch_size: int) -> Cost:
        """Count the cost of an optimiser step; compute one pass, and change nothing.

        The pushforward is counted by its chance of 1/2.
        """
        problem, like = self.problem, self.field_mean
        parameters = like.new_tensor(problem.low).expand(batch_size, -1)
        times = torch.linspace(*problem.times, self.window).to(like).expand(batch_size, -1)
        fields = like.new_zeros(batch_size, self.window, problem.channels, *problem.grid)
        training = self.training
        self.eval()
        try:
            cost = counted(self, lambda: self.losses(parameters, times, fields).mean())
            if self.pushforward:
                part = times[:, : self.bundle + 1]
                pushed = counted_flops(lambda: self.advance(parameters, part, fields[:, 0]))
                cost = replace(cost, flops=cost.flops + pushed // 2)
        finally:
            self.train(training)
        return cost

    def _pushed(self, parameters: Tensor, times: Tensor, current: Tensor) -> Tensor:
        """Return the predicted state [n, C, *grid] at the end of the bundle, without gradient."""
        with torch.no_grad():
            end = self._advance(self._conditions(parameters, times), current)[:, -1]
        # Older torch would reuse the weights that autocast has cast here, without gradient (pytorch
        # issue 112583).
        torch.clear_autocast_cache()
        return end

    def _advance(self, conditions: Tensor, current: Tensor) -> Tensor:
        """Return normalised fields [n, K, C, *grid] that follow the current ones [n, C, *grid]."""
        output = self._output(conditions, current)
        return current[:, None] + output * self._by_field(self.step_scale)

    def _output(self, conditions: Tensor, current: Tensor | None = None) -> Tensor:
        """Return the network's output [n, K, C, *grid] for conditions [n, k].

        The current fields [n, C, *grid], normalised, are for mode autoregressive.
        """
        n, problem = conditions.shape[0], self.problem
        state = self.static.expand(n, *self.static.shape)
        if current is not None:
            state = torch.cat([current, state], 1)
        output: Tensor = self(conditions, state)
        return output.view(n, self.bundle, problem.channels, *problem.grid)

    def _conditions(self, parameters: Tensor, times: Tensor) -> Tensor:
        """Return normalised conditions [..., k] for parameters [..., p] and times [..., K + 1].

        In mode direct, for times [..., 1]. Fewer times are enough: the missing steps are taken to
        be as long as the last.
        """
        columns = [parameters, times[..., :1]]
        if self.mode == "autoregressive":
            steps = times.diff(dim=-1)
            missing = self.bundle - steps.shape[-1]
            columns += [steps, *[steps[..., -1:]] * missing]
        raw = torch.cat(columns, -1).to(self.low.dtype)
        raw = torch.where(self.log, raw.clamp(min=1e-300).log(), raw)
        # A condition that does not vary, such as the time of a single stored step, tells nothing.
        span = torch.where(self.high > self.low, self.high - self.low, 1.0)
        return (2 * (raw - self.low) / span - 1).to(self.field_mean.dtype)

    def _normal(self, fields: Tensor) -> Tensor:
        """Convert fields [..., C, *grid] from physical to normalised units."""
        fields = fields.to(self.field_mean.dtype)
        return (fields - self._by_field(self.field_mean)) / self._by_field(self.field_scale)

    def _physical(self, fields: Tensor) -> Tensor:
        """Convert fields [..., C, *grid] from normalised to physical units."""
        mean, scale = self._by_field(self.field_mean), self._by_field(self.field_scale)
        return torch.addcmul(mean, fields, scale)

    def _by_field(self, values: Tensor) -> Tensor:
        """Return values [..., C] in the shape that multiplies fields [..., C, *grid]."""
        return values.view(*values.shape, *[1] * len(self.problem.grid))
