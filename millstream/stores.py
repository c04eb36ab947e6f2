"""Stores of simulations, as xarray sees them."""

from os import PathLike, fspath

import xarray

from framework.store.layout import zarr_store
from framework.store.reader import StoreReader
from millstream.arguments import checked


@checked
def open_store(path_or_url: str | PathLike[str]) -> xarray.Dataset:
    """Open the complete simulations of a store; their fields are read when they are used.

    Args:
        path_or_url: The store, such as `stores/NAME.zarr` or `s3://bucket/NAME.zarr`.

    Returns:
        A variable for each field, with the dimensions `simulation`, `time` and an axis for each of
        the grid's; beside them `parameters` (`simulation`, `parameter`) and the times `t`
        (`simulation`, `time`). The coordinate `simulation` has the ids, without those of
        simulations that are not complete.

    Raises:
        StudyError: There is no store there that Millstream has written.
        RunError: The store is damaged.

    Example:
        >>> store = millstream.open_store("stores/quickstart.zarr")
        >>> last = store.temperature.isel(time=-1).mean("simulation")
    """
    reader = StoreReader(fspath(path_or_url))
    store: xarray.Dataset = xarray.open_zarr(zarr_store(reader.path, read_only=True))
    complete: xarray.Dataset = store.isel(simulation=reader.complete)
    return complete.assign_coords(simulation=reader.complete)
