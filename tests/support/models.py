"""Trained surrogates, and what they predict."""

from typing import Any

import torch

from framework.study.case import Case
from framework.study.study import Study
from surrogates.base import Surrogate

STUDY: dict[str, Any] = {
    "name": "heat",
    "solver": {"name": "heat", "grid_size": 16, "stored_steps": 5},
    "design": {"simulations": 4},
    "buffer": {"capacity": 20, "watermark": 10},
}

SURROGATES: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden": [8]},
    "fno": {"name": "fno", "modes": 4, "hidden_channels": 4, "layers": 1},
    "stepping": {"name": "fno", "mode": "autoregressive", "modes": 4, "hidden_channels": 4},
}


def trained(kind: str, double: bool = False, **changes: Any) -> tuple[Case, Surrogate]:
    """A surrogate with weights and normalisation that no new one has."""
    case = Case(Study.model_validate({**STUDY, "surrogate": SURROGATES[kind], **changes}))
    torch.manual_seed(3)
    surrogate = case.make_surrogate()
    surrogate.normalise_fields(torch.tensor([300.0]), torch.tensor([80.0]), torch.tensor([9.0]))
    return case, surrogate.double() if double else surrogate


@torch.no_grad()
def outputs(surrogate: Surrogate, n: int = 2) -> torch.Tensor:
    """The rollout of n simulations."""
    torch.manual_seed(n)
    problem = surrogate.problem
    parameters = 100 + 400 * torch.rand(n, len(problem.names), dtype=torch.float64)
    times = torch.linspace(0, 0.1, 5, dtype=torch.float64).expand(n, -1)
    initial = 300 + torch.rand(n, problem.channels, *problem.grid)
    return torch.stack(list(surrogate.rollout(parameters, times, initial)), 1)
