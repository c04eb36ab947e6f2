"""Sends the fields of a simulation to Millstream, which has started this program.

    import millstream_client as millstream

    millstream.init()
    for step in range(steps):
        ...
        millstream.send(step, "temperature", u)
    millstream.finalize()

Needs Python 3.9 and nothing else. Each process (rank) that has a part of the fields makes the three
calls, from one thread. The format is described in docs/how-to/external.md.
"""

import json
import os
import socket
import sys

_socket = None
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
    _send_line({"millstream": 1, "token": token})


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


def finalize():
    """Say that all is sent, and disconnect. A simulation that ends without it has failed."""
    global _socket
    _send_line({"end": True})
    _socket.close()
    _socket = None


def _send_line(header):
    if _socket is None:
        raise RuntimeError("init has to be called first")
    _socket.sendall(json.dumps(header).encode() + b"\n")
