"""Sends the fields of a simulation to Millstream, which has started this program.

    import millstream_client as millstream

    millstream.init()
    for step in range(steps):
        ...
        millstream.send(step, "temperature", u)
    millstream.finalize()

A program that stays for many simulations asks for each of them:

    millstream.init()
    while simulation := millstream.next():
        (conductivity, width), seed = simulation
        for step in range(steps):
            ...
    millstream.finalize()

Needs Python 3.9 and nothing else. Each process (rank) that has a part of the fields makes all
calls, from one thread. The format is described in docs/how-to/external.md.
"""

import json
import os
import socket
import struct
import sys

_socket = None
_no_more = False  # simulations: Millstream has closed the connection
_DTYPES = {"f": "float32", "d": "float64"}


def init():
    """Connect. Call it once, before the first send."""
    global _socket
    if _socket is not None:
        raise RuntimeError("init was called twice")
    if sys.byteorder != "little":
        raise RuntimeError("Millstream takes little-endian numbers")
    try:
        address, token = os.environ["MILLSTREAM_ADDRESS"], os.environ["MILLSTREAM_TOKEN"]
    except KeyError as error:
        raise RuntimeError(f"{error.args[0]} is not set: Millstream sets it") from None
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    _socket = connection
    _send_line({"millstream": 2, "token": token})


def send(step, field, data, offset=None):
    """Send this process's part of a stored step; the initial state is step 0.

    Returns when the part is on its way, and so waits while Millstream does. A process sends at
    least one part of each step, in order. `field`: one of the study's fields; or None: all of them,
    as a first axis before the grid's. `data`: float32 or float64 numbers with the grid's axes: a
    numpy array, or whatever has the buffer protocol. `offset`: where the part begins along each
    axis, without it at the origin.
    """
    view = memoryview(data)
    dtype = _DTYPES.get(view.format.lstrip("<=@"))
    if dtype is None:
        raise TypeError(f"the numbers are {view.format!r}, and have to be float32 or float64")
    header = {"step": int(step), "dtype": dtype, "shape": list(view.shape)}
    if field is not None:
        header["field"] = field
    header["offset"] = [0] * view.ndim if offset is None else [int(begin) for begin in offset]
    _send_line(header)
    # Numbers that do not lie one after the other, the last axis fastest, are put so.
    _socket.sendall(view if view.c_contiguous else view.tobytes())


def next():
    """Wait for the next simulation, in a study with `stays: true`; all ranks are told the same.

    Returns its parameters, a tuple in the order of the study, and its seed, from 0 to 2^63 - 1; or
    None if there are no more simulations.
    """
    global _no_more
    if not _no_more:
        _send_line({"next": True})
        line = _receive_line()
        _no_more = not line
    if _no_more:
        return None
    header = json.loads(line)
    count = header["parameters"]
    return struct.unpack(f"<{count}d", _receive(8 * count)), header["seed"]


def finalize():
    """Say that all is sent, and disconnect. A simulation that ends without it has failed."""
    global _socket
    if not _no_more:
        _send_line({"end": True})
    _socket.close()
    _socket = None


def _send_line(header):
    if _socket is None:
        raise RuntimeError("init has to be called first")
    _socket.sendall(json.dumps(header).encode() + b"\n")


def _receive_line():
    """Return a line; an empty one if the connection was closed before it."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            byte = _socket.recv(1)
        except ConnectionResetError:
            byte = b""
        if not byte and line:
            raise ConnectionError("Millstream has broken off")
        if not byte:
            break
        line += byte
    return line


def _receive(size):
    data = b""
    while len(data) < size:
        part = _socket.recv(size - len(data))
        if not part:
            raise ConnectionError("Millstream has broken off")
        data += part
    return data
