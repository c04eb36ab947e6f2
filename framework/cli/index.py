"""The command `index`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from framework.cli.arguments import listed_numbers, texts_by_name
from framework.cli.ending import AsJson, ending
from framework.errors import tell

StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="A store of simulations, stores/NAME.zarr.")
]


def index_command(
    store: StorePath,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MASK=VALUE,...",
            help="Imaging thresholds to try for a mask, in place of the solver's own.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the look-up index of a store, or extend it by what was simulated since."""
    with ending(as_json, go_on="the same command goes on") as outcome:
        tried = {
            name: listed_numbers(name, text)
            for name, text in texts_by_name(thresholds or []).items()
        }
        tell(f"reading the store {store} and making its solver")
        from framework.inverse.index.building import build
        from framework.inverse.posterior.calibration import calibrated

        started = time.monotonic()
        result = build(store, tried or None, _tell_progress)
        tell("calibrating the posterior by simulations of the store")
        result["calibration"] = calibrated(store).summary()
        files = Path(result["index"]).iterdir()
        result["bytes"] = sum(file.stat().st_size for file in files)
        result["seconds"] = time.monotonic() - started
        outcome.result = lambda: result
        outcome.text = lambda: (
            f"{result['index']}: {result['entries']} entries of "
            f"{result['simulations']['indexed']} simulations, {result['simulations']['added']} of "
            f"them new, {result['bytes'] / 1e6:.1f} MB, {result['seconds']:.0f} s"
        )


def _tell_progress(done: int, simulations: int) -> None:
    if done == simulations or done % 100 == 0:
        tell(f"indexed {done} of {simulations} simulations")
