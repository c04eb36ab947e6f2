"""One connection of a program, that of a rank: what it has sent, and what it may send next."""

import hmac
import socket
from collections.abc import Sequence
from reprlib import repr as short
from typing import Any

from solvers.external_wire import VERSIONS, Decoder, Piece, WireError, read_header


class Connection:
    """A socket, and its place in the sequence of simulations, headers and payloads."""

    def __init__(self, peer: socket.socket, steps: int, stays: bool) -> None:
        """`steps`: of a simulation; `stays`: whether the program asks for several simulations."""
        self.peer = peer
        self.decoder = Decoder()
        self.greeted = False  # it has shown the token
        self.step: int | None = None  # of its last piece in this simulation
        self.piece: Piece | None = None  # announced, and not complete
        self.claimed = False  # the piece's payload is arriving
        self.offered = 0  # simulations; the last one is that of its pieces
        self.asked = False  # it waits for the next one
        self._steps = steps
        self._stays = stays

    def greet(self, token: str) -> bool | None:
        """Read its first line; return whether it shows the token, None before the line is whole.

        Raises WireError if it speaks another version.
        """
        try:
            line = self.decoder.line()
            if line is None:
                return None
            header = read_header(line)
        except WireError:
            return False
        shown: Any = header.get("token")
        is_text = isinstance(shown, str) and shown.isascii()
        if not (is_text and hmac.compare_digest(shown, token)):
            return False
        known = VERSIONS[1:] if self._stays else VERSIONS
        if header.get("millstream") not in known:
            raise WireError(
                f"speaks version {short(header.get('millstream'))} of the format: it has to be "
                f"{' or '.join(map(str, known))}{' where solver.stays is true' * self._stays}"
            )
        self.greeted = True
        return True

    def take_request(self) -> None:
        """Note that it waits for the next simulation. Raises WireError if it may not."""
        if not self._stays:
            raise WireError("asked for the next simulation, but solver.stays is not true")
        if self.offered and self.step != self._steps - 1:
            sent = 0 if self.step is None else self.step + 1
            raise WireError(
                f"asked for the next simulation after {sent} of the {self._steps} steps of this one"
            )
        self.asked = True

    def take_end(self) -> None:
        """Check that it may finalize. Raises WireError if it may not."""
        if self._stays:
            raise WireError(
                "finalized, but as solver.stays is true it has to ask for the next simulation "
                "until there is none"
            )
        if self.decoder.held:
            raise WireError('sent something after {"end": true}')

    def answer(self, offers: Sequence[bytes]) -> None:
        """Offer it the next simulation, if it waits for one and there is one."""
        if not self.asked or self.offered == len(offers):
            return
        offer = offers[self.offered]
        try:
            sent = self.peer.send(offer)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):  # it has ended, and its end is read next
            sent = len(offer)
        if sent < len(offer):
            raise WireError("does not read the simulations that it asks for")
        self.offered += 1
        self.asked, self.step = False, None

    def check_step(self, piece: Piece, expected: int, complete: bool, late: bool) -> None:
        """Raise WireError if a piece is of a step that cannot come now.

        `expected`: the step that is arriving; `complete`: whether all of the piece's step has
        arrived. A rank sends something of every step, in order; so none can be two steps ahead. A
        rank whose part is empty can be `late`, since no step waits for it.
        """
        step, last = piece.step, self.step
        if self._stays and not self.offered:
            raise WireError(f"sent step {short(step)} before it had asked for a simulation")
        if self._stays and last == self._steps - 1 and step < last:
            raise WireError(
                f"sent step {step} after the last one without asking for the next simulation"
            )
        if step >= self._steps:
            raise WireError(
                f"sent step {short(step)}, but the study has {self._steps} steps, from 0 to "
                f"{self._steps - 1}"
            )
        if complete and piece.nbytes:
            raise WireError(f"sent a part of step {step} when it was complete")
        ahead = step > expected + 1 and not late
        if ahead or (last is not None and step not in (last, last + 1)):
            due = expected if last is None else last + 1
            raise WireError(f"sent step {short(step)} when step {due} was to come")

    def close(self) -> None:
        """Close the socket."""
        self.peer.close()
