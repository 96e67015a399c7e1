"""Serving step by step: what a model says of the next token, and which token its asker takes.

* A step is sent when the one before was answered, so that neither side keeps more than one.
* An asker that does not choose in time loses its place: a row of the worker's batch waits for it.
* The answer that the receipt covers is the tokens taken, each with what the model said of it.
"""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ledger.errors import Invalid, Reason
from models.answers import MAX_STEPWISE
from models.mixture import read_distribution
from models.parts import STEP_BYTES
from models.pipe import Done, Failed, Step
from models.types import Query
from p2p.node.workers import Job, Worker

IDLE_S = 30.0
"""An asker waits for its slowest expert, and for one that is lost: longer than that takes."""
Choices = trio.MemoryReceiveChannel[bytes]
Send = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Steps:
    """What came of a job."""

    output: bytes
    """The tokens taken, with what was said of each."""
    done: Done
    told: int
    """Distributions that the asker had."""
    first: float
    """When the first came (trio's clock)."""


async def relay_steps(
    worker: Worker, query: Query, job: Job, send: Send, choices: Choices
) -> Steps:
    """Pass a job's steps on and its asker's choices back. Raises Invalid."""
    if query.sampling.max_tokens > MAX_STEPWISE:
        raise Invalid(Reason.BAD_REQUEST, f"at most {MAX_STEPWISE} tokens are taken one by one")
    output = bytearray()
    told, first = 0, 0.0
    async for event in job:
        first = first or trio.current_time()
        if isinstance(event, Failed):
            raise Invalid(event.reason, event.detail)
        if isinstance(event, Done):
            # A token that ends the text is no part of it.
            return Steps(bytes(output[: STEP_BYTES * event.output_tokens]), event, told, first)
        if not isinstance(event, Step):
            raise Invalid(Reason.MODEL_FAILED, "the worker wrote, and was asked for steps")
        await send(event)
        if event.scores:
            told += 1
            token = await _chosen(choices)
            await worker.choose(event.job, token)  # it computes while we count
            if token:
                output += taken(event, token)
    raise Invalid(Reason.MODEL_FAILED, "the worker ended while answering")


async def _chosen(choices: Choices) -> bytes:
    try:
        with trio.fail_after(IDLE_S):
            return await choices.receive()
    except trio.TooSlowError:
        raise Invalid(Reason.BAD_REQUEST, f"no token was taken within {IDLE_S:g} s") from None
    except trio.EndOfChannel:
        raise Invalid(Reason.BAD_REQUEST, "the asker is gone") from None


def taken(step: Step, token: bytes) -> bytes:
    """A token of 4 bytes with what a step said of it. Raises Invalid BAD_REQUEST."""
    if len(token) != 4:
        raise Invalid(Reason.BAD_REQUEST, "a token has 4 bytes")
    said = read_distribution(step.tokens, step.scores)
    return token + struct.pack("<f", said.score(int.from_bytes(token, "little")))
