"""Receive the stored steps of one run of a program from a socket.

Everything happens in the calls: between two of them nothing is read, so a program that is ahead
waits in its send, and holds the next step itself. Only the kernel's buffers of a socket and a pipe
are on the way meanwhile: about 200 KB.
"""

import hmac
import selectors
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.external_program import Program
from solvers.external_wire import (
    VERSION,
    Decoder,
    Frame,
    Piece,
    WireError,
    read_header,
    read_piece,
)

# Ranks that may be connected at once; each costs a header line of memory.
MAX_CONNECTIONS = 1024
# Seconds between two checks whether the program still runs.
_POLL = 0.02


class _Connection:
    """One rank: its socket, and its place in the sequence of headers and payloads."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.decoder = Decoder()
        self.greeted = False  # it has shown the token
        self.step: int | None = None  # of its last piece
        self.piece: Piece | None = None  # announced, and not complete
        self.claimed = False  # the piece's payload is arriving


class Receiver:
    """Listens at `address` for the `steps` steps of `fields` on `grid` that a program sends."""

    def __init__(
        self,
        address: Path,
        token: str,
        fields: tuple[str, ...],
        grid: tuple[int, ...],
        steps: int,
        time_limit: float,
    ) -> None:
        self._token = token
        self._fields = fields
        self._grid = grid
        self._steps = steps
        self._time_limit = time_limit
        self._frame = Frame((len(fields), *grid))
        self._step = 0  # the step that is arriving
        self._open: set[_Connection] = set()
        self._paused: list[_Connection] = []  # connections a step ahead
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
        self._watch(program.errors, self._read_errors)

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
        """Return once the program has ended well. Raises WireError if it does not."""
        self._step = self._steps
        deadline = time.monotonic() + self._time_limit
        while not self._over(deadline):
            pass
        if verdict := self._verdict():
            raise WireError(verdict)

    def close(self) -> None:
        """Close the socket and all connections."""
        for connection in self._open:
            connection.peer.close()
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

    def _too_slow(self) -> str:
        limit = f"within its limit of {self._time_limit:g} s"
        if self._step == self._steps:
            return f"sent its {self._steps} steps, but did not end {limit}"
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
        return f"ended {sent} without finalize" if unfinished else ""

    def _watch(self, source: Any, call: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, call)

    def _read_errors(self) -> None:
        if not self._program.read_errors():
            self._selector.unregister(self._program.errors)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # too many open files
            raise WireError(f"cannot connect to Millstream: {error.strerror}") from None
        peer.setblocking(False)
        connection = _Connection(peer)
        self._open.add(connection)
        self._watch(peer, partial(self._read, connection))
        if len(self._open) > MAX_CONNECTIONS:
            raise WireError(f"opened more than {MAX_CONNECTIONS} connections at once")

    def _read(self, connection: _Connection) -> None:
        count = connection.peer.recv_into(connection.decoder.room())
        connection.decoder.received(count)
        if count == 0:
            self._broken += connection.greeted
            self._refused += not connection.greeted
            self._drop(connection)
        else:
            self._advance(connection)

    def _drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.peer)
        self._open.remove(connection)
        connection.peer.close()

    def _advance(self, connection: _Connection) -> None:
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
                if connection.piece.step > self._step:
                    self._selector.unregister(connection.peer)
                    self._paused.append(connection)
                    return
                self._frame.claim(connection.piece)
                connection.decoder.expect(connection.piece.nbytes)
                connection.claimed = True
            elif not self._take_header(connection):
                return

    def _take_header(self, connection: _Connection) -> bool:
        """Take the next header; return whether there was one and more may follow it."""
        if not connection.greeted:
            return self._greet(connection)
        line = connection.decoder.line()
        if line is None:
            return False
        header = read_header(line)
        if header == {"end": True}:
            if connection.decoder.held:
                raise WireError('sent something after {"end": true}')
            self._finalized += 1
            self._drop(connection)
            return False
        piece = read_piece(header, self._fields, self._grid)
        self._check_step(connection, piece)
        connection.piece, connection.step = piece, piece.step
        return True

    def _greet(self, connection: _Connection) -> bool:
        """Check the first line of a connection; drop the connection if the token is wrong."""
        try:
            line = connection.decoder.line()
            if line is None:
                return False
            header = read_header(line)
        except WireError:
            header = {}
        token: Any = header.get("token")
        is_text = isinstance(token, str) and token.isascii()
        if not (is_text and hmac.compare_digest(token, self._token)):
            self._refused += 1
            self._drop(connection)
            return False
        if header.get("millstream") != VERSION:
            raise WireError(
                f"speaks version {short(header.get('millstream'))} of the format: it has to be "
                f"{VERSION}"
            )
        connection.greeted = True
        return True

    def _check_step(self, connection: _Connection, piece: Piece) -> None:
        """Raise WireError if a piece is of a step that cannot come now.

        A rank sends something of every step, in order; so none can be two steps ahead. A rank whose
        part is empty can be late, since no step waits for it.
        """
        step, last = piece.step, connection.step
        if step >= self._steps:
            raise WireError(
                f"sent step {short(step)}, but the study has {self._steps} steps, from 0 to "
                f"{self._steps - 1}"
            )
        complete = step < self._step or (step == self._step and not self._frame.missing)
        if complete and piece.nbytes:
            raise WireError(f"sent a part of step {step} when it was complete")
        if step > self._step + 1 or (last is not None and step not in (last, last + 1)):
            expected = self._step if last is None else last + 1
            raise WireError(f"sent step {short(step)} when step {expected} was to come")
