"""Receive the stored steps that a program sends to a socket, in one simulation or in several.

Everything happens in the calls: between two of them nothing is read, so a program that is ahead
waits in its send, and holds the next step itself. Only the kernel's buffer of a socket is on the
way meanwhile: about 200 KB.

A program that stays asks for each simulation on every connection, and is then offered it. The
simulation is over when all connections have asked for the next one. A rank whose part is empty can
come later than that, as no step waits for it: it is offered all simulations one after the other.
"""

import selectors
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.external_connection import Connection
from solvers.external_program import Program
from solvers.external_wire import Frame, WireError, read_header, read_piece, write_offer

# Ranks that may be connected at once; each costs a header line of memory.
MAX_CONNECTIONS = 1024
# Seconds between two checks whether the program still runs.
_POLL = 0.02


class Receiver:
    """Listens at `address` for the `steps` steps of `fields` on `grid` that a program sends.

    `stays`: whether it sends those of several simulations, each of which begins with `offer`.
    """

    def __init__(
        self,
        address: Path,
        token: str,
        fields: tuple[str, ...],
        grid: tuple[int, ...],
        steps: int,
        time_limit: float,
        stays: bool,
    ) -> None:
        self._token = token
        self._fields = fields
        self._grid = grid
        self._steps = steps
        self._time_limit = time_limit
        self._stays = stays
        self._offers: list[bytes] = []
        self._frame = Frame((len(fields), *grid))
        self._step = 0  # the step that is arriving
        self._open: set[Connection] = set()
        self._paused: list[Connection] = []  # connections a step ahead
        self._finalized = self._broken = self._refused = 0  # connections, by how they ended
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(MAX_CONNECTIONS)
        self._listener.setblocking(False)
        self._watch(self._listener, self._accept)

    def attend(self, program: Program) -> None:
        """Attend to a program that has been started and will send."""
        self._program = program
        if program.exit is not None:
            self._watch(program.exit, partial(self._selector.unregister, program.exit))

    def offer(self, parameters: NDArray[np.float64], seed: int) -> None:
        """Begin the next simulation of a program that stays; its parameters are [p]."""
        self._offers.append(write_offer(len(self._offers), parameters, seed))
        self._step, self._frame = 0, Frame(self._frame.values.shape)
        for connection in self._open:
            connection.answer(self._offers)

    def frame(self, step: int) -> NDArray[np.float32]:
        """Return a stored step [C, *grid], once it is complete; ask for steps in order.

        Raises WireError if the step will not come.
        """
        if step:
            self._step, self._frame = step, Frame(self._frame.values.shape)
            paused, self._paused = self._paused, []
            for connection in paused:
                self._watch(connection.peer, partial(self._read, connection))
                self._advance(connection)
        deadline = time.monotonic() + self._time_limit
        while self._frame.missing:
            if self._over(deadline):
                raise WireError(self._verdict())
        return self._frame.values

    def finish(self) -> None:
        """Return once the program has ended well, or asks for the next simulation if it stays.

        Raises WireError if it does not.
        """
        self._step = self._steps
        deadline = time.monotonic() + self._time_limit
        while not self._all_have_asked():
            if self._over(deadline):
                break
        else:
            return
        if verdict := self._verdict():
            raise WireError(verdict)

    def close(self) -> None:
        """Close the socket and all connections."""
        for connection in self._open:
            connection.close()
        self._listener.close()
        self._selector.close()

    def _over(self, deadline: float) -> bool:
        """Read what has come; return whether the program has ended and no more can come."""
        # The order matters: what a program sent before it ended is there once it has ended.
        ended = self._program.status() is not None
        events = self._selector.select(0 if ended else _POLL)
        for key, _ in events:
            key.data()
        if time.monotonic() > deadline:
            raise WireError(self._too_slow())
        return ended and not events

    def _all_have_asked(self) -> bool:
        """Return whether all connections wait for the next simulation, of a program that stays."""
        greeted = [connection for connection in self._open if connection.greeted]
        return bool(greeted) and all(
            connection.asked and connection.offered == len(self._offers) for connection in greeted
        )

    def _too_slow(self) -> str:
        limit = f"within its limit of {self._time_limit:g} s"
        if self._step == self._steps:
            due = "ask for the next simulation" if self._stays else "end"
            return f"sent its {self._steps} steps, but did not {due} {limit}"
        return f"did not send step {self._step} {limit}{self._lacking()}"

    def _lacking(self) -> str:
        """Say what the step under way lacks, if any of it came."""
        whole, missing = self._frame.values.size, self._frame.missing
        return f" ({missing} of its {whole} numbers are missing)" if 0 < missing < whole else ""

    def _verdict(self) -> str:
        """Say what is wrong with the program's end; return an empty text if nothing is."""
        sent = f"after {self._step} of {self._steps} steps{self._lacking()}"
        status = self._program.status()
        assert status is not None
        if status > 0:
            return f"ended with status {status} {sent}"
        if status < 0:
            return f"was ended by signal {-status} ({signal.strsignal(-status)}) {sent}"
        unfinished = self._broken + sum(connection.greeted for connection in self._open)
        if not self._finalized + unfinished:
            strangers = self._refused + len(self._open)
            return f"ended {sent} without " + (
                f"showing the token in MILLSTREAM_TOKEN on its {strangers} connections"
                if strangers
                else "connecting to the socket in MILLSTREAM_ADDRESS"
            )
        if self._step < self._steps:
            return f"ended {sent}"
        if self._stays:
            return (
                f"ended {sent}, but as solver.stays is true it has to ask for the next simulation"
            )
        return f"ended {sent} without finalize" if unfinished else ""

    def _watch(self, source: Any, call: Callable[[], object]) -> None:
        self._selector.register(source, selectors.EVENT_READ, call)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # too many open files
            raise WireError(f"cannot connect to Millstream: {error.strerror}") from None
        peer.setblocking(False)
        connection = Connection(peer, self._steps, self._stays)
        self._open.add(connection)
        self._watch(peer, partial(self._read, connection))
        if len(self._open) > MAX_CONNECTIONS:
            raise WireError(f"opened more than {MAX_CONNECTIONS} connections at once")

    def _read(self, connection: Connection) -> None:
        try:
            count = connection.peer.recv_into(connection.decoder.room())
        except ConnectionResetError:  # it has ended without reading what it was offered
            count = 0
        connection.decoder.received(count)
        if count == 0:
            self._broken += connection.greeted
            self._refused += not connection.greeted
            self._drop(connection)
        else:
            self._advance(connection)

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.peer)
        self._open.remove(connection)
        connection.close()

    def _advance(self, connection: Connection) -> None:
        """Take everything from a connection that has arrived whole."""
        while True:
            if connection.claimed:
                payload = connection.decoder.payload()
                if payload is None:
                    return
                assert connection.piece is not None
                self._frame.put(connection.piece, payload)
                connection.piece, connection.claimed = None, False
            elif connection.piece is not None:
                if connection.piece.step > self._step and not self._is_late(connection):
                    self._selector.unregister(connection.peer)
                    self._paused.append(connection)
                    return
                self._frame.claim(connection.piece)
                connection.decoder.expect(connection.piece.nbytes)
                connection.claimed = True
            elif not self._take_header(connection):
                return

    def _take_header(self, connection: Connection) -> bool:
        """Take the next header; return whether there was one and more may follow it."""
        if not connection.greeted:
            return self._greet(connection)
        line = connection.decoder.line()
        if line is None:
            return False
        header = read_header(line)
        if connection.asked:
            raise WireError("sent something while it waited for the next simulation")
        if header == {"next": True}:
            connection.take_request()
            connection.answer(self._offers)
            return True
        if header == {"end": True}:
            connection.take_end()
            self._finalized += 1
            self._drop(connection)
            return False
        piece = read_piece(header, self._fields, self._grid)
        late = self._is_late(connection)
        arrived = piece.step < self._step or (piece.step == self._step and not self._frame.missing)
        connection.check_step(piece, self._step, late or arrived, late)
        connection.piece, connection.step = piece, piece.step
        return True

    def _greet(self, connection: Connection) -> bool:
        """Read the first line of a connection; drop the connection if the token is wrong."""
        shown = connection.greet(self._token)
        if shown is False:
            self._refused += 1
            self._drop(connection)
        return bool(shown)

    def _is_late(self, connection: Connection) -> bool:
        """Return whether its pieces are of an earlier simulation; they can only be empty ones."""
        return connection.offered < len(self._offers)
