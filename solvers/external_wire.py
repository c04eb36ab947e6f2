"""The format in which a program sends its fields, and how they are put together.

A connection carries header lines, each one line of JSON in UTF-8 of at most 4096 bytes with its
newline, and raw numbers after each header that announces some:

    {"millstream": 2, "token": "0f3a..."}
    {"step": 0, "field": "temperature", "dtype": "float64", "shape": [16, 64], "offset": [48, 0]}
    ... 16 * 64 * 8 bytes ...
    {"end": true}

The first line has the version of the format and the token that the program was given. Each of the
next lines announces a piece of a stored step: the block of a field that begins at `offset` and has
`shape`, both in the order of the grid's axes. Without `field` it is a block of all fields, which
are then an axis before the grid's. The numbers are little-endian, the last axis fastest. The last
line says that the program is done. Several connections may each send pieces; a
step is complete when every number of it has arrived.

A program that stays for several simulations, which is what version 2 adds, asks for each of them,
the first one too, and is answered on the same connection as soon as there is one:

    {"next": true}
                                   {"simulation": 0, "seed": 77, "parameters": 2}
                                   ... 2 * 8 bytes: float64, in the order of the study ...

Every connection is told the same simulations, counted from 0. When there are no more, Millstream
closes the connections.

C: fields; `*grid`: the grid's axes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSIONS = (1, 2)
LINE_BYTES = 4096
_KEYS = ("step", "field", "dtype", "shape", "offset")
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}


class WireError(Exception):
    """A program sent something wrong; the message is a sentence about the program."""


class Decoder:
    """Cuts the bytes of a connection, however they arrive, into lines and payloads.

    The owner receives into `room()`, reports how many bytes came, and takes lines and payloads once
    they are whole. At most a line, or the payload that the owner expects, is held.
    """

    def __init__(self) -> None:
        self._line = bytearray(LINE_BYTES)
        self._used = 0
        self._payload: NDArray[np.uint8] | None = None
        self._filled = 0

    def room(self) -> memoryview:
        """Return the memory for the next bytes."""
        if self._payload is not None:
            return self._payload.data[self._filled :]
        return memoryview(self._line)[self._used :]

    def received(self, count: int) -> None:
        """Note that `count` bytes were written into `room()`."""
        if self._payload is not None:
            self._filled += count
        else:
            self._used += count

    def line(self) -> bytes | None:
        """Return the next line, once it is whole. Raises WireError if it is too long."""
        end = self._line.find(b"\n", 0, self._used)
        if end < 0:
            if self._used == LINE_BYTES:
                raise WireError(f"sent a header of more than {LINE_BYTES} bytes")
            return None
        line = bytes(self._line[:end])
        self._drop(end + 1)
        return line

    @property
    def held(self) -> int:
        """How many bytes have come that are not part of a line yet."""
        return self._used

    def expect(self, size: int) -> None:
        """Expect a payload of this many bytes next."""
        self._payload = np.empty(size, dtype=np.uint8)
        self._filled = min(size, self._used)
        self._payload[: self._filled] = np.frombuffer(self._line, np.uint8, self._filled)
        self._drop(self._filled)

    def payload(self) -> NDArray[np.uint8] | None:
        """Return the expected payload, once it is whole."""
        if self._payload is None or self._filled < len(self._payload):
            return None
        payload, self._payload = self._payload, None
        return payload

    def _drop(self, count: int) -> None:
        self._line[: self._used - count] = self._line[count : self._used]
        self._used -= count


def read_header(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a header line. Raises WireError."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        start = line[:40].decode(errors="replace")
        raise WireError(f"sent a header that is not a JSON object: {start!r}")
    return header


def write_offer(simulation: int, parameters: NDArray[np.float64], seed: int) -> bytes:
    """Return what tells a program its next simulation, for parameters [p]."""
    header = {"simulation": simulation, "seed": seed, "parameters": len(parameters)}
    return json.dumps(header).encode() + b"\n" + parameters.astype("<f8").tobytes()


@dataclass(frozen=True)
class Piece:
    """A piece that a header announces: the part `region` of a stored step's frame [C, *grid]."""

    step: int
    region: tuple[slice, ...]
    shape: tuple[int, ...]  # of the region
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """The size of the piece in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_piece(header: dict[str, Any], fields: Sequence[str], grid: Sequence[int]) -> Piece:
    """Return the piece that a header announces.

    Raises WireError if it is not a part of the `fields` on this `grid`.
    """
    values: list[Any] = [header.get(key) for key in _KEYS]
    step, field, dtype, shape, offset = values
    if unknown := sorted(header.keys() - set(_KEYS)):
        raise WireError(f"sent a header with {short(unknown[0])}, which is none of its keys")
    if not _is_count(step):
        raise WireError(f"sent the step {short(step)}: it has to be a number from 0 on")
    if not (isinstance(dtype, str) and dtype in _DTYPES):
        raise WireError(f"sent the dtype {short(dtype)}: it has to be {' or '.join(_DTYPES)}")
    if field is not None and field not in fields:
        raise WireError(f"sent the field {short(field)}: the study has {', '.join(fields)}")
    _check_block(shape, offset, (len(fields), *grid) if field is None else tuple(grid))
    if field is not None:
        shape, offset = [1, *shape], [fields.index(field), *offset]
    region = tuple(slice(begin, begin + size) for begin, size in zip(offset, shape, strict=True))
    return Piece(step, region, tuple(shape), _DTYPES[dtype])


def _check_block(shape: Any, offset: Any, whole: tuple[int, ...]) -> None:
    for name, counts in (("shape", shape), ("offset", offset)):
        if not (isinstance(counts, list) and all(map(_is_count, counts))):
            raise WireError(
                f"sent the {name} {short(counts)}: it has to be a list of numbers from 0 on"
            )
        if len(counts) != len(whole):
            raise WireError(
                f"sent the {name} {short(counts)}, with {len(counts)} axes: the array {whole} "
                f"has {len(whole)}"
            )
    if any(begin + size > end for begin, size, end in zip(offset, shape, whole, strict=True)):
        raise WireError(
            f"sent the shape {short(shape)} at the offset {short(offset)}, which lies outside "
            f"the array {whole}"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Frame:
    """One stored step, filled piece by piece."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values: NDArray[np.float32] = np.empty(shape, dtype=np.float32)
        self.missing = self.values.size  # numbers that have not arrived
        self._claimed = np.zeros(shape, dtype=bool)

    def claim(self, piece: Piece) -> None:
        """Claim the place of a piece that is about to arrive. Raises WireError if part of it came.

        So the pieces under way are never more than a frame, however many connections there are.
        """
        if self._claimed[piece.region].any():
            raise WireError(f"sent a part of step {piece.step} twice")
        self._claimed[piece.region] = True

    def put(self, piece: Piece, payload: NDArray[np.uint8]) -> None:
        """Store a claimed piece that has arrived."""
        values = payload.view(piece.dtype).reshape(piece.shape)
        # Values too large for float32 become infinite, and the simulation fails later.
        with np.errstate(over="ignore", invalid="ignore"):
            self.values[piece.region] = values
        self.missing -= values.size
