"""The ids of simulations: training simulations count from 0, held-out ones from -1 downwards."""


def is_held_out(id: int) -> bool:
    """Return whether a simulation is held out from training, to score surrogates with."""
    return id < 0


def held_out_id(number: int) -> int:
    """Return the id of a held-out simulation from its number, counted from 0."""
    return -1 - number


def simulation_text(id: int) -> str:
    """Return a simulation's name in messages."""
    return f"held-out simulation {held_out_number(id)}" if is_held_out(id) else f"simulation {id}"


def held_out_number(id: int) -> int:
    """Return the number of a held-out simulation, counted from 0, from its id."""
    return -1 - id
