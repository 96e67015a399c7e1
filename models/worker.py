"""The subprocess that owns torch: `python -m models.worker --fd N --directory DIR`.

* It talks to the daemon over a Unix stream socket inherited as descriptor N, in frames of
  models.pipe: first Ready, or Refused and it ends; then Part, Done and Failed. End of file ends it.
* One thread: it waits on the socket while there is no job, and looks at it between two steps else.
* What the daemon does not read waits here, at most OUT_BYTES and one step's replies; over that no
  step is made, and frames are still read, so that neither side waits for the other for ever.
* Standard output and error carry logs only.
"""

import argparse
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import Invalid, Reason
from models.backends import Backend, line_of
from models.backends.upstream import UpstreamBackend
from models.catalog import Model, available_memory, open_model, validate_memory
from models.config import GptConfig, PretrainedConfig, UpstreamConfig
from models.pipe import (
    Cancel,
    Choose,
    Failed,
    Frame,
    FrameReader,
    Ready,
    Refused,
    Submit,
    brief,
    frame_bytes,
)
from models.pretrained import OFFLINE
from models.types import Kind, ModelCard

READ_BYTES = 65_536
READS = 16
"""How often to read at one look, so that a large input comes in soon while answers are made."""
OUT_BYTES = 2**20
"""Some forty thousand parts of text, or one tensor."""
DEFAULT_SLOTS = 8
"""Decoding eight answers costs about as much as two, more gain little on few cores."""


@dataclass(frozen=True)
class Options:
    """What the daemon says on the command line."""

    fd: int
    directory: Path
    name: str | None
    slots: int
    threads: int


class Pipe:
    """The worker's end: whole frames in, bytes out whenever the other side takes them."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._reader = FrameReader()
        self._out = bytearray()
        self._poll = select.poll()

    @property
    def full(self) -> bool:
        """Whether the daemon has so much to read that no more should be made."""
        return len(self._out) > OUT_BYTES

    def write(self, frames: Sequence[Frame]) -> None:
        """Send what goes now, keep the rest."""
        for frame in frames:
            self._out += frame_bytes(frame)
        self._flush()

    def read(self, wait: bool) -> list[Frame] | None:
        """The frames that came, having waited for any event if asked; None at the end of file."""
        interest = select.POLLIN | (select.POLLOUT if self._out else 0)
        self._poll.register(self._socket, interest)
        events = self._poll.poll(None if wait else 0)
        self._flush()
        if not events or events[0][1] == select.POLLOUT:
            return []
        data = self._received()
        return None if data is None else list(self._reader.feed(data))

    def _received(self) -> bytes | None:
        """What is there to read; None at the end of file."""
        pieces: list[bytes] = []
        while len(pieces) < READS:
            try:
                piece = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            if not piece:
                return None
            pieces.append(piece)
            if len(piece) < READ_BYTES:
                break
        return b"".join(pieces)

    def drain(self) -> None:
        """Wait until all is sent."""
        self._socket.setblocking(True)
        self._socket.sendall(self._out)
        self._out.clear()

    def _flush(self) -> None:
        if self._out:
            try:
                del self._out[: self._socket.send(self._out)]
            except BlockingIOError:
                return


def serve(pipe: Pipe, backend: Backend) -> None:
    """Answer until the daemon closes the pipe."""
    while True:
        stepping = backend.busy and not pipe.full
        frames = pipe.read(wait=not stepping)
        if frames is None:
            return
        for frame in frames:
            _take(pipe, backend, frame)
        if backend.busy and not pipe.full:
            _step(pipe, backend)


def _take(pipe: Pipe, backend: Backend, frame: Frame) -> None:
    """Start or stop a job, as the daemon says."""
    if isinstance(frame, Cancel):
        backend.cancel(frame.job)
    elif isinstance(frame, Choose):
        try:
            pipe.write(backend.choose(frame))
        except Invalid as error:
            backend.cancel(frame.job)
            pipe.write([Failed(frame.job, error.reason, brief(error.detail))])
    elif isinstance(frame, Submit):
        try:
            backend.submit(frame, time.monotonic())
        except Invalid as error:
            pipe.write([Failed(frame.job, error.reason, brief(error.detail))])


def _step(pipe: Pipe, backend: Backend) -> None:
    """One step; whatever a model raises ends the jobs it had and not the worker."""
    try:
        replies = backend.step(time.monotonic())
    except Exception as error:
        traceback.print_exc()
        jobs = backend.drop_all()
        replies = [Failed(job, Reason.MODEL_FAILED, line_of(error)) for job in jobs]
    pipe.write(replies)


def load(options: Options) -> tuple[Model, Backend]:
    """The model of the command line. Raises Invalid: BAD_MODEL, NO_MEMORY."""
    model = open_model(options.directory)
    validate_memory(model.shape, options.slots, available_memory())
    if isinstance(model.config, UpstreamConfig):
        return model, UpstreamBackend(model.config, options.slots)
    # Torch takes seconds and 200 MB: not for a model that is refused.
    import torch

    torch.set_num_threads(options.threads)
    if isinstance(model.config, GptConfig):
        from models.backends.gpt import open_gpt

        return model, open_gpt(model, model.config, options.slots)
    if isinstance(model.config, PretrainedConfig):
        return model, _pretrained(model, model.config, options.slots)
    from models.backends.exported import open_exported

    return model, open_exported(model, model.config, options.slots)


def _pretrained(model: Model, config: PretrainedConfig, slots: int) -> Backend:
    """A model of the transformers library, which is an extra."""
    os.environ.update(OFFLINE)
    try:
        from models.backends.encoder import open_encoder
        from models.backends.pretrained import open_pretrained
    except ImportError as error:
        detail = f"{error}; it comes with: pip install 'yumad[hf]'"
        raise Invalid(Reason.BAD_MODEL, detail) from None
    if config.kind is Kind.TEXT:
        return open_pretrained(model, config, slots)
    return open_encoder(model, config, slots)


def card_of(model: Model, backend: Backend, options: Options) -> ModelCard:
    """What the daemon may say of the model; its price is the daemon's to set."""
    return ModelCard(
        name=options.name or model.name,
        kind=model.kind,
        digest=model.digest,
        parameters=model.parameters,
        dtype=backend.dtype,
        context=backend.context,
        engine=f"{backend.fingerprint}/threads-{options.threads}"[:64],
        price=0,
        tokenizer=model.tokenizer,
    )


def resident_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(options: Options) -> int:
    """Answer the daemon until it closes the pipe; the exit status."""
    try:
        return load_and_serve(Pipe(socket.socket(fileno=options.fd)), options)
    except (BrokenPipeError, ConnectionResetError):
        print("the daemon is gone", file=sys.stderr)
        return 0


def load_and_serve(pipe: Pipe, options: Options) -> int:
    """Load, say so, serve; the exit status."""
    try:
        model, backend = load(options)
    except Invalid as error:
        return refuse(pipe, error)
    except Exception as error:  # whatever torch raises at a model that looked sound
        traceback.print_exc()
        return refuse(pipe, Invalid(Reason.BAD_MODEL, line_of(error)))
    pipe.write([Ready(card_of(model, backend, options), backend.slots, resident_bytes())])
    serve(pipe, backend)
    return 0


def refuse(pipe: Pipe, error: Invalid) -> int:
    """Say why there is no model; the exit status."""
    pipe.write([Refused(error.reason, brief(error.detail))])
    pipe.drain()
    return 1


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """The command line as a value."""
    parser = argparse.ArgumentParser(prog="python -m models.worker", description="Serve a model.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited Unix socket")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--name", help="what to call the model; its own name by default")
    parser.add_argument("--slots", type=_positive, default=DEFAULT_SLOTS, help="jobs in one batch")
    parser.add_argument("--threads", type=_positive, default=1, help="torch's threads")
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    """Set up the process, then run it."""
    # Ctrl-C reaches the whole group of processes; the daemon drains and then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(run(read_options()))


if __name__ == "__main__":
    main()
