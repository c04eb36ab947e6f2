"""The surrogates that a study can name, described without importing them.

Their modules import torch, which takes seconds; messages about mistakes in a study and `millstream
list` have to come at once. tests/surrogates/test_surrogate_table.py compares every line with the
surrogate itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from surrogates.problem import Mode


@dataclass(frozen=True)
class Entry:
    """One surrogate."""

    path: str  # module:Class
    # A function with the arguments of its constructor, and the first sentence of its documentation.
    settings: Callable[..., None]


def mlp(mode: Mode = "direct", hidden: tuple[Annotated[int, Ge(1)], ...] = (256, 256)) -> None:
    """Fully connected layers with ReLU between them, from the conditions to every grid point."""


def fno(
    mode: Mode = "direct",
    modes: Annotated[int, Ge(1)] = 16,
    hidden_channels: Annotated[int, Ge(1)] = 32,
    layers: Annotated[int, Ge(1)] = 4,
) -> None:
    """A Fourier neural operator (Li et al., arXiv 2010.08895), as neuraloperator implements it."""


def unet(
    mode: Mode = "direct",
    hidden_channels: Annotated[int, Ge(1)] = 32,
    levels: Annotated[int, Ge(1)] = 2,
    periodic: bool = False,
) -> None:
    """A U-Net of residual blocks (Ronneberger et al., arXiv 1505.04597), in 1-D, 2-D and 3-D."""


def message_passing(
    mode: Mode = "direct",
    bundle: Annotated[int, Ge(1)] = 1,
    pushforward: bool = False,
    neighbours: Annotated[int, Ge(1)] = 2,
    hidden: Annotated[int, Ge(1)] = 64,
    layers: Annotated[int, Ge(1)] = 4,
    periodic: bool = False,
) -> None:
    """The message-passing PDE solver of Brandstetter, Worrall and Welling (arXiv 2202.03376)."""


TABLE: Mapping[str, Entry] = {
    "mlp": Entry("surrogates.mlp:Mlp", mlp),
    "fno": Entry("surrogates.fno:Fno", fno),
    "unet": Entry("surrogates.unet:UNet", unet),
    "message_passing": Entry("surrogates.message_passing:MessagePassing", message_passing),
}
