"""The places of grid points, as channels."""

import torch
from torch import Tensor


def coordinates(grid: tuple[int, ...], periodic: bool) -> Tensor:
    """Return the coordinates of grid points [d, *grid], each from -1 to 1 along its axis.

    For a periodic grid, return the sine and the cosine of the angle along each axis, [2 d, *grid],
    which do not jump.
    """
    axes = [
        2 * torch.pi * torch.arange(size) / size if periodic else torch.linspace(-1, 1, size)
        for size in grid
    ]
    along = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.cat([along.sin(), along.cos()]) if periodic else along
