"""Serving in one go: what a worker writes, passed on as it comes, and what comes of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ledger.errors import Invalid, Reason
from models.parts import Portion
from models.pipe import Done, Failed, Part, Step
from models.trace import row_of
from models.types import Kind, Query, Receipt, Tensor, cost_of
from p2p.node.workers import Job, Worker

Answered = Part | Step | Portion | Receipt
Send = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Made:
    """What a finished job gave, when it began and gave its first part (trio's clock), its cost."""

    output: bytes
    tensor: tuple[Tensor, ...]
    done: Done
    began: float
    first: float
    cost: int = 0
    """Rao that are due for it."""
    parts: tuple[Portion, ...] = ()
    """Of others, where they had any."""
    trace: bytes = b""
    """What was told of its tokens (`models.trace`)."""


async def relay_parts(
    worker: Worker, query: Query, job: Job, send: Send, sign: Callable[[Made], Receipt],
    began: float, price: int,
) -> None:  # fmt: skip
    """Pass a job's parts on, those that are there together in one go; sign at its end.

    Raises Invalid.
    """
    output, trace = bytearray(), bytearray()
    tensor: tuple[Tensor, ...] = ()
    first = 0.0
    async for event in job:
        batch: list[Answered] = []
        following: Part | Step | Done | Failed | None = event
        while following is not None:
            first = first or trio.current_time()
            if isinstance(following, Failed):
                raise Invalid(following.reason, following.detail)
            if isinstance(following, Part):
                output += following.data
                trace += row_of(following.tokens, following.likely)
                tensor = following.tensor
                batch.append(following)
            elif isinstance(following, Done):
                worker.largest = max(worker.largest, len(output))
                cost = cost_of(query.kind, price, following.output_tokens)
                made = Made(
                    bytes(output), tensor, following, began, first, cost, trace=bytes(trace)
                )
                _measure(worker, query, made)
                batch.append(sign(made))
            following = _at_once(job)
        await send(*batch)
        if isinstance(batch[-1], Receipt):
            return
    raise Invalid(Reason.MODEL_FAILED, "the worker ended while answering")


def _measure(worker: Worker, query: Query, made: Made) -> None:
    """Count an answer that has just ended, and how fast it came."""
    alone = query.kind is Kind.TENSOR or made.done.output_tokens == 1
    began = made.began if alone else made.first
    worker.measured(_amount(query, made.done), trio.current_time() - began)


def _amount(query: Query, done: Done) -> int:
    """What a speed is measured in: tokens, or tensors. What a text model only reads says nothing
    of how fast it writes."""
    return 1 if query.kind is Kind.TENSOR else done.output_tokens


def _at_once(job: Job) -> Part | Step | Done | Failed | None:
    """The next event of a job if it is there already."""
    try:
        return job.receive_nowait()
    except (trio.WouldBlock, trio.EndOfChannel):
        return None
