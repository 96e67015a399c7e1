"""The framed pipe between a daemon and its worker: each frame is a length and one value.

A frame is 4 bytes of length (big-endian) and the msgpack of (tag, fields). Both ends are ours and
on one machine; the codec is the same as on the wire so that there is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from ledger.codec import Tagged
from ledger.errors import Invalid, Reason
from ledger.types import Size
from models.turns import OWN, Standing
from models.types import (
    MAX_INPUT_BYTES,
    MAX_PREFIX_BYTES,
    Finish,
    Kind,
    LikelyField,
    ModelCard,
    Sampling,
    Tensor,
)

MAX_FRAME_BYTES = 2 * MAX_INPUT_BYTES + MAX_PREFIX_BYTES
LENGTH_BYTES = 4
MAX_STEP_BYTES = 2**14
"""Of the numbers of one distribution: a vocabulary of 4096 is said whole."""
MAX_DETAIL_BYTES = 1000


# --- daemon to worker


@dataclass(frozen=True)
class Submit:
    """Run one job. `input` is UTF-8 text, a packed Chat, Choices or Passages, or the buffer of the
    tensor whose shape `tensor` holds, as the kind says."""

    job: int
    kind: Kind
    input: Annotated[bytes, Size(MAX_INPUT_BYTES)]
    tensor: Annotated[tuple[Tensor, ...], Size(1)]
    sampling: Sampling
    prefix: Annotated[bytes, Size(MAX_PREFIX_BYTES)]
    time_limit_ms: int
    standing: Standing = OWN


@dataclass(frozen=True)
class Cancel:
    """Forget a job: nobody wants its answer. No Done or Failed follows."""

    job: int


@dataclass(frozen=True)
class Choose:
    """The token that is taken in a stepwise job, 4 bytes little-endian; none: it is over."""

    job: int
    token: Annotated[bytes, Size(4)]


# --- worker to daemon


@dataclass(frozen=True)
class Ready:
    """The model is loaded; said once, before anything else."""

    card: ModelCard
    slots: int
    """How many jobs run at once in a batch."""
    memory_bytes: int
    """Resident size of the worker now."""


@dataclass(frozen=True)
class Refused:
    """The model cannot be loaded; the worker ends after this."""

    reason: Reason
    detail: Annotated[str, Size(MAX_DETAIL_BYTES)]


@dataclass(frozen=True)
class Part:
    """A piece of an answer. Text: `tokens` (4 bytes little-endian each) and the bytes they stand
    for; one whose likelihood is told comes alone. A tensor comes in one part, without tokens."""

    job: int
    tokens: Annotated[bytes, Size(MAX_PREFIX_BYTES)]
    data: Annotated[bytes, Size(2 * MAX_INPUT_BYTES)]
    tensor: Annotated[tuple[Tensor, ...], Size(1)]
    likely: LikelyField = ()


@dataclass(frozen=True)
class Step:
    """How likely each next token is in a stepwise job (`models.mixture.Distribution`), which
    waits for the choice. Where the answer ends there is no next one, and no scores."""

    job: int
    data: Annotated[bytes, Size(MAX_STEP_BYTES)]
    """The bytes of the token taken last; none at first."""
    tokens: Annotated[bytes, Size(MAX_STEP_BYTES)]
    scores: Annotated[bytes, Size(MAX_STEP_BYTES)]


@dataclass(frozen=True)
class Done:
    """The job is complete."""

    job: int
    finish: Finish
    prompt_tokens: int
    output_tokens: int
    """Tokens made here, the prefix not counted."""


@dataclass(frozen=True)
class Failed:
    """The job cannot be done, and why; the worker goes on."""

    job: int
    reason: Reason
    detail: Annotated[str, Size(MAX_DETAIL_BYTES)]


def brief(detail: str) -> str:
    """A detail cut to what a frame may carry, in bytes."""
    return detail.encode(errors="replace")[:MAX_DETAIL_BYTES].decode(errors="ignore")


Frame = Submit | Cancel | Choose | Ready | Refused | Part | Step | Done | Failed
FRAMES = Tagged(
    Submit, Cancel, Choose, Ready, Refused, Part, Step, Done, Failed, limit=MAX_FRAME_BYTES
)


def frame_bytes(frame: Frame) -> bytes:
    """A frame as it goes down the pipe."""
    data = FRAMES.encode(frame)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


class FrameReader:
    """Collects bytes and gives the frames that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes; yield each complete frame. Raises Invalid on a frame that is not ours."""
        self._buffer += data
        while len(self._buffer) >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise Invalid(Reason.TOO_LARGE, f"frame of {length} bytes")
            end = LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            frame: Frame = FRAMES.decode(bytes(self._buffer[LENGTH_BYTES:end]))
            del self._buffer[:end]
            yield frame
