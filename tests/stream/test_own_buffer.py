"""A study may name a buffer of the user's own, by its import path."""

import pytest
from broken_buffers import Newest
from places import QUICKSTART

from framework.errors import StudyError
from framework.run.assembly import make_buffer
from framework.stream.samples import SampleShape
from framework.study.case import Case
from framework.study.study import Study


def case(kind: str) -> Case:
    return Case(Study.load(QUICKSTART, [f"buffer={{kind: '{kind}', capacity: 40, watermark: 5}}"]))


def test_a_buffer_of_the_users_own_is_made_with_the_studys_settings() -> None:
    buffer = make_buffer(case("broken_buffers:Newest"), SampleShape(5, 1, (1, 3)))
    assert type(buffer) is Newest
    assert buffer.capacity == 40


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("numpy:ndarray", "that is not a subclass of Buffer"),
        ("broken_buffers:Oldest", "broken_buffers has no Oldest"),
        ("broken_buffers:RefusesAll", "no room"),
        ("no_such_module:Mine", "importing no_such_module failed with ModuleNotFoundError"),
    ],
)
def test_what_is_no_buffer_is_refused(kind: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        make_buffer(case(kind), SampleShape(5, 1, (1, 3)))
