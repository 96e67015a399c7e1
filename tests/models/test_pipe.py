from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from models.pipe import (
    MAX_FRAME_BYTES,
    Cancel,
    Done,
    Failed,
    Frame,
    FrameReader,
    Part,
    Ready,
    Refused,
    Submit,
    frame_bytes,
)
from models.types import Finish, Kind, ModelCard, Sampling, Tensor

CARD = ModelCard("m", Kind.TEXT, bytes(32), 1, "float32", 512, "gpt", 0)
FRAMES: list[Frame] = [
    Submit(1, Kind.TEXT, b"hello", (), Sampling(700, 40, 3, 9), b"\x01\x00\x00\x00", 1000),
    Submit(2, Kind.TENSOR, bytes(300_000), (Tensor("float32", (3, 25_000)),), Sampling(), b"", 1),
    Cancel(1),
    Ready(CARD, 8, 123),
    Refused(Reason.NO_MEMORY, "needs 9 MB, 8 MB are free"),
    Part(1, b"\x01\x00\x00\x00", b"a", ()),
    Done(1, Finish.TIME, 3, 4),
    Failed(1, Reason.BUSY, ""),
]
STREAM = b"".join(map(frame_bytes, FRAMES))


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_frames_come_out_whole_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    reader = FrameReader()
    edges = [0, *sorted(cuts), len(STREAM)]
    frames = [frame for begin, end in pairwise(edges) for frame in reader.feed(STREAM[begin:end])]
    assert frames == FRAMES


def test_byte_by_byte() -> None:
    reader = FrameReader()
    small = frame_bytes(FRAMES[0]) + frame_bytes(FRAMES[2])
    frames = [frame for byte in small for frame in reader.feed(bytes([byte]))]
    assert frames == [FRAMES[0], FRAMES[2]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), Reason.TOO_LARGE),
        (b"\x00\x00\x00\x01\xc1", Reason.NOT_CANONICAL),
        (b"\x00\x00\x00\x01\x05", Reason.WRONG_TYPE),
        (b"\x00\x00\x00\x03\x92\x63\x90", Reason.WRONG_TYPE),
    ],
)
def test_refuses_what_is_no_frame(data: bytes, reason: Reason) -> None:
    with pytest.raises(Invalid) as refusal:
        list(FrameReader().feed(data))
    assert refusal.value.reason is reason
