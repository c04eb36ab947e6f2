"""What a program sends, in any split and order, and what is refused of it."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from solvers.external_wire import (
    LINE_BYTES,
    Decoder,
    Frame,
    WireError,
    read_header,
    read_piece,
)

FIELDS = ("density", "energy")
HEADER = {"step": 0, "field": "energy", "dtype": "float64", "shape": [2, 3], "offset": [1, 0]}


def feed(decoder: Decoder, data: bytes, sizes: Iterator[int]) -> Iterator[None]:
    """Give the decoder the bytes in packets of these sizes, or as much as it has room for."""
    while data:
        room = decoder.room()
        count = min(next(sizes), len(room), len(data))
        room[:count] = data[:count]
        decoder.received(count)
        data = data[count:]
        yield


@given(
    messages=st.lists(
        st.tuples(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b" ")), st.binary()),
        max_size=6,
    ),
    sizes=st.lists(st.integers(1, 40), min_size=1),
)
def test_lines_and_payloads_come_out_as_they_were_sent_in_whatever_packets(
    messages: list[tuple[bytes, bytes]], sizes: list[int]
) -> None:
    decoder, came = Decoder(), []
    awaited: bytes | None = None  # the line whose payload is awaited
    sent = b"".join(line + b"\n" + payload for line, payload in messages)
    lengths = iter([len(payload) for _, payload in messages])
    for _ in feed(decoder, sent, itertools.cycle(sizes)):
        while True:
            if awaited is None:
                awaited = decoder.line()
                if awaited is None:
                    break
                decoder.expect(next(lengths))
            payload = decoder.payload()
            if payload is None:
                break
            came.append((awaited, payload.tobytes()))
            awaited = None
    assert came == messages


def test_a_line_without_end_is_refused_and_never_held() -> None:
    decoder = Decoder()
    for _ in feed(decoder, b"x" * LINE_BYTES, itertools.cycle([1000])):
        assert len(decoder.room()) <= LINE_BYTES
    with pytest.raises(WireError, match="more than 4096 bytes"):
        decoder.line()


def cuts(size: int) -> st.SearchStrategy[list[slice]]:
    """An axis of this size, cut into pieces."""
    inner = st.sets(st.integers(1, size - 1)) if size > 1 else st.just(set())
    return inner.map(
        lambda at: list(itertools.starmap(slice, itertools.pairwise([0, *sorted(at), size])))
    )


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """A grid, and headers in any order whose pieces tile both fields."""
    grid = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    together = draw(st.booleans())
    arrays = [None] if together else list(FIELDS)
    headers = []
    for field in arrays:
        whole = (len(FIELDS), *grid) if together else grid
        for block in itertools.product(*[draw(cuts(size)) for size in whole]):
            header: dict[str, Any] = {
                "step": 0,
                "dtype": draw(st.sampled_from(["float32", "float64"])),
                "shape": [part.stop - part.start for part in block],
                "offset": [part.start for part in block],
            }
            headers.append(header if field is None else header | {"field": field})
    return grid, draw(st.permutations(headers))


def numbers(frame: NDArray[np.float32], header: dict[str, Any]) -> NDArray[np.uint8]:
    """The bytes that a program with this frame [C, *grid] would send after the header."""
    field = header.get("field")
    array = frame if field is None else frame[FIELDS.index(field)]
    block = tuple(
        slice(begin, begin + size)
        for begin, size in zip(header["offset"], header["shape"], strict=True)
    )
    little = {"float32": "<f4", "float64": "<f8"}[header["dtype"]]
    return np.frombuffer(array[block].astype(little).tobytes(), np.uint8)


@given(tilings())
def test_pieces_that_tile_the_domain_make_the_frame_in_any_order(
    tiling: tuple[tuple[int, ...], list[dict[str, Any]]],
) -> None:
    grid, headers = tiling
    shape = (len(FIELDS), *grid)
    original = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    frame = Frame(shape)
    for header in headers:
        assert frame.missing
        piece = read_piece(json.loads(json.dumps(header)), FIELDS, grid)
        payload = numbers(original, header)
        assert piece.nbytes == payload.nbytes
        frame.claim(piece)
        with pytest.raises(WireError, match="step 0 twice"):
            frame.claim(piece)
        frame.put(piece, payload)
    assert frame.missing == 0
    np.testing.assert_array_equal(frame.values, original)


def test_what_float32_cannot_hold_becomes_infinite_without_a_warning() -> None:
    frame = Frame((1, 2))
    piece = read_piece(
        {"step": 0, "dtype": "float64", "shape": [1, 2], "offset": [0, 0]}, ["u"], [2]
    )
    frame.claim(piece)
    frame.put(piece, np.array([1e300, np.nan]).view(np.uint8))
    assert np.isinf(frame.values[0, 0])
    assert np.isnan(frame.values[0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "the step -1"),
        ({"step": True}, "the step True"),
        ({"step": 1.5}, "the step 1.5"),
        ({"dtype": "int32"}, "the dtype 'int32': it has to be float32 or float64"),
        ({"dtype": ["float32"]}, "the dtype"),
        ({"field": "speed"}, "the field 'speed': the study has density, energy"),
        ({"field": {}}, "the field {}"),
        ({"shape": 3}, "the shape 3: it has to be a list"),
        ({"shape": [2, -3]}, "the shape"),
        ({"shape": [2, 3.0]}, "the shape"),
        ({"shape": [2, 3, 1]}, r"with 3 axes: the array \(4, 3\) has 2"),
        ({"shape": [2, 4]}, r"\[2, 4\] at the offset \[1, 0\], which lies outside"),
        ({"offset": [3, 0]}, "outside the array"),
        ({"shape": [2**40, 2**40]}, "outside the array"),
        ({"offset": [10**4000, 0]}, "outside the array"),
        ({"field": None}, r"2 axes: the array \(2, 4, 3\) has 3"),
        ({"rank": 0}, "'rank', which is none of its keys"),
    ],
)
def test_a_header_of_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    read_piece(HEADER, FIELDS, (4, 3))
    with pytest.raises(WireError, match=message) as caught:
        read_piece(HEADER | change, FIELDS, (4, 3))
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=200))
def test_any_line_is_an_object_or_refused(line: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(read_header(line), dict)


@pytest.mark.parametrize("line", [b"", b"[" * 4000, b'"text"', b"17", b"\xff\xfe", b"{'step': 0}"])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(WireError, match="not a JSON object"):
        read_header(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: json_values | st.just(HEADER[key])
            for key in ("step", "field", "dtype", "shape", "offset")
        },
    )
)
def test_any_object_is_a_piece_within_the_frame_or_refused(header: dict[str, Any]) -> None:
    try:
        piece = read_piece(header, FIELDS, (4, 3))
    except WireError:
        return
    frame = Frame((2, 4, 3))
    assert frame.values[piece.region].shape == piece.shape
