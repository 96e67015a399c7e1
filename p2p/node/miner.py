"""Serves models: owns the workers, answers queries, signs receipts.

What is refused is refused with a reason; a full queue says so at once instead of letting wait.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import trio
from trio_typing import TaskStatus

from gossip.topics import Served
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash, Height
from models import catalog
from models.config import may_be_called
from models.parts import parts_hash
from models.trace import trace_hash
from models.turns import OWN, Lane, Standing
from models.types import (
    MAX_NEW_TOKENS,
    Query,
    Receipt,
    ReceiptBody,
    cost_of,
    input_hash,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.node.question import Means
from p2p.node.relay import Made, Send, relay_parts
from p2p.node.stepwise import Choices, relay_steps
from p2p.node.tabs import CannotPay
from p2p.node.workers import Recipe, Worker

log = logging.getLogger("yuma.miner")

MAX_TIME_MS = 600_000
"""No answer may take longer than ten minutes."""
MAX_MODELS = 32


class Composite(Protocol):
    """A model made of models, which are asked wherever they are served."""

    price: int
    """Rao per 1000 output tokens, as of a worker."""
    netuid: int

    @property
    def name(self) -> str:
        """What the model is called here."""

    @property
    def served(self) -> Served:
        """What presence says of it."""

    @property
    def engine(self) -> str:
        """What its receipts say of what made the answer."""

    async def answer(self, query: Query, data: bytes, send: Send, means: Means, lane: Lane) -> Made:
        """Answer a query, each Part as it comes. Raises Invalid, CannotPay."""


@dataclass
class Miner:
    """The models of this node."""

    pair: KeyPair
    chain: ChainId
    unix_ms: Callable[[], int]
    height: Callable[[], Height]
    changed: Callable[[], None]
    """Called when what is served has changed."""
    locate: Callable[[str], tuple[Path, str]] = lambda name: (catalog.shipped_directory(name), "")
    """Where a model is that is named, and what it is called here. Raises Invalid BAD_MODEL."""
    prices: Mapping[str, int] = field(default_factory=dict)
    """Of models by name, in rao per 1000 output tokens (or per tensor); others are free."""
    workers: dict[str, Worker] = field(default_factory=dict)
    composites: dict[Hash, Composite] = field(default_factory=dict)
    """The models made of models that are served here."""
    _models: dict[str, catalog.Model] = field(default_factory=dict)
    """What each worker was started with."""
    _nursery: trio.Nursery | None = None
    _closed: bool = False

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the workers until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def serve(
        self, place: str, name: str | None, slots: int, threads: int, price: int | None = None
    ) -> Worker:
        """Load a model and serve it; returns when it is up.

        `place` is a directory, or names a stored or shipped model; `price` None: what `prices`
        says. Raises Invalid: BAD_MODEL, NO_MEMORY.
        """
        assert self._nursery is not None
        model, called = await trio.to_thread.run_sync(self._model_at, place, slots)
        name = name or called or model.name
        if not may_be_called(name, model.digest.hex()):
            detail = f"{name} reads as the digest of another model: choose another with --name"
            raise Invalid(Reason.BAD_MODEL, detail)
        if name in self.workers or name in (one.name for one in self.composites.values()):
            raise Invalid(Reason.BAD_MODEL, f"a model named {name} is served already")
        self.validate_room()
        price = self.prices.get(name, 0) if price is None else price
        worker = Worker(Recipe(model.directory, name, slots, threads), self.changed, price=price)
        self.workers[name], self._models[name] = worker, model
        done = trio.Event()
        failure: list[BaseException] = []
        self._nursery.start_soon(self._supervise, worker, done, failure)
        await done.wait()
        if failure:
            raise failure[0]
        return worker

    def validate_room(self) -> None:
        """Return if another model may be served. Raises Invalid BAD_MODEL."""
        if len(self.workers) + len(self.composites) >= MAX_MODELS:
            raise Invalid(Reason.BAD_MODEL, f"a node serves at most {MAX_MODELS} models")

    def _model_at(self, place: str, slots: int) -> tuple[catalog.Model, str]:
        """The model at a place, if it fits, and what it is called here."""
        directory, name = Path(place), ""
        if "/" not in place and not directory.is_dir():
            directory, name = self.locate(place)
        directory = directory.resolve()
        # Before its files are hashed, which takes minutes of one that is much too large.
        shape = catalog.check_model(directory)
        catalog.validate_memory(shape, slots, catalog.available_memory())
        return catalog.open_model(directory), name

    async def _supervise(
        self, worker: Worker, up: trio.Event, failure: list[BaseException]
    ) -> None:
        """Run a worker to its end; what goes wrong at the start is told to who asked for it."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(worker.run)
                up.set()
        except BaseException as error:
            reason = _single(error)
            if up.is_set() or not isinstance(reason, Invalid | trio.TooSlowError):
                raise
            failure.append(reason)
        finally:
            if self.workers.get(worker.recipe.name) is worker:
                del self.workers[worker.recipe.name], self._models[worker.recipe.name]
            up.set()
            self.changed()

    async def stop(self, name: str) -> None:
        """Stop serving a model. Raises Invalid NO_MODEL."""
        worker = self.workers.get(name)
        if worker is None:
            raise Invalid(Reason.NO_MODEL, name)
        await worker.stop()

    def set_price(self, name: str, price: int) -> None:
        """Have a model cost so much from now on. Raises Invalid NO_MODEL."""
        worker = self.workers.get(name)
        made_here = [one for one in self.composites.values() if one.name == name]
        if worker is not None:
            worker.set_price(price)
        elif made_here:
            made_here[0].price = price
        else:
            raise Invalid(Reason.NO_MODEL, name)
        self.changed()

    def close(self) -> None:
        """Refuse new queries from now on; those under way go on."""
        self._closed = True

    @property
    def answered(self) -> int:
        """Queries answered by the workers that there are."""
        return sum(worker.answered for worker in self.workers.values())

    def running(self) -> int:
        """Queries under way."""
        return sum(each.queue for each in self.announced())

    def ready(self) -> list[Worker]:
        """The workers that answer now."""
        return [worker for worker in self.workers.values() if worker.ready is not None]

    def find(self, digest: Hash) -> Worker | None:
        """The least busy worker of a model that is up."""
        found = [worker for worker in self.ready() if worker.card.digest == digest]
        return min(found, key=lambda worker: worker.running, default=None)

    def seller(self, digest: Hash) -> Worker | Composite | None:
        """Whatever answers for a model here: its name, price and subnet are those of the model."""
        return self.composites.get(digest) or self.find(digest)

    def model(self, digest: Hash) -> catalog.Model | None:
        """A model that is served here."""
        return next((one for one in self._models.values() if one.digest == digest), None)

    def announced(self) -> tuple[Served, ...]:
        """What presence says of our models."""
        made_here = (composite.served for composite in self.composites.values())
        return (*(worker.served for worker in self.ready()), *made_here)

    def weight(self, query: Query) -> int:
        """About how many bytes a query makes us keep: its input, and an answer like those before,
        or as large as the input."""
        worker = self.find(query.model)
        answer = max(query.input_size, worker.largest if worker is not None else 0)
        return query.input_size + answer

    # --- answering

    async def answer(
        self,
        query: Query,
        data: bytes,
        send: Send,
        standing: Standing = OWN,
        price: int = 0,
        means: Means | None = None,
    ) -> None:
        """Answer a query: `send(*answered)` gets each Part, and at the end the Receipt.

        `price`: what was agreed with the asker; `means`: what a client of this node's may spend on
        those that answer for a model made of models. Raises Invalid with what to tell it; CannotPay
        where there are `means`.
        """
        self._check(query, data)
        composite = self.composites.get(query.model)
        if composite is not None:
            await self._composed(composite, query, data, send, standing.lane, price, means)
            return
        worker = self._found(query)
        began = trio.current_time()
        async with worker.job(query, data, standing) as job:
            sign = partial(self._receipt, query, engine=worker.card.engine)
            await relay_parts(worker, query, job, send, sign, began, price)

    async def _composed(
        self,
        composite: Composite,
        query: Query,
        data: bytes,
        send: Send,
        lane: Lane,
        price: int,
        means: Means | None,
    ) -> None:
        """Answer for a model made of models. What strangers pay for it is all that goes on to those
        that it is made of: they cannot spend what is this node's."""
        most = cost_of(query.kind, price, query.sampling.max_tokens - len(query.prefix) // 4)
        try:
            made = await composite.answer(query, data, send, means or Means(most, price), lane)
        except CannotPay as error:
            if means is not None:
                raise
            log.info("%s is not answered: %s", composite.name, error)
            detail = "those that it is made of cost more than is paid for it"
            raise Invalid(Reason.BUSY, detail) from None
        made = replace(made, cost=cost_of(query.kind, price, made.done.output_tokens))
        await send(*made.parts, self._receipt(query, made, composite.engine))

    async def step_by_step(
        self, query: Query, data: bytes, send: Send, choices: Choices,
        standing: Standing = OWN, price: int = 0,
    ) -> None:  # fmt: skip
        """Answer a stepwise query: `send` gets each Step, and at the end the Receipt; `choices`
        gives the tokens taken. Raises Invalid with what to tell the asker."""
        self._check(query, data)
        worker = self._found(query)
        began = trio.current_time()
        async with worker.job(query, data, standing) as job:
            steps = await relay_steps(worker, query, job, send, choices)
        done, cost = steps.done, cost_of(query.kind, price, steps.told)
        made = Made(steps.output, (), done, began, steps.first, cost)
        worker.measured(done.output_tokens, 0)  # how fast was its asker's doing
        await send(self._receipt(query, made, worker.card.engine))

    def _found(self, query: Query) -> Worker:
        worker = self.find(query.model)
        if worker is None:
            raise Invalid(Reason.NO_MODEL, query.model.hex()[:12])
        return worker

    def _check(self, query: Query, data: bytes) -> None:
        if self._closed:
            raise Invalid(Reason.BUSY, "this node is shutting down")
        if query.chain != self.chain:
            raise Invalid(Reason.WRONG_CHAIN)
        if len(data) != query.input_size or input_hash(data) != query.input_hash:
            raise Invalid(Reason.BAD_REQUEST, "the input is not the one that the query names")
        if not 0 < query.time_limit_ms <= MAX_TIME_MS:
            raise Invalid(Reason.BAD_REQUEST, f"the time limit is not within {MAX_TIME_MS} ms")
        if not 0 < query.sampling.max_tokens <= MAX_NEW_TOKENS:
            raise Invalid(Reason.BAD_REQUEST, f"max_tokens is not within 1..{MAX_NEW_TOKENS}")

    def _receipt(self, query: Query, made: Made, engine: str) -> Receipt:
        now = trio.current_time()
        done = made.done
        body = ReceiptBody(
            chain=self.chain,
            server=self.pair.public,
            request_hash=request_hash(query),
            model=query.model,
            output_hash=output_hash(made.output),
            output_tensor=made.tensor,
            prompt_tokens=done.prompt_tokens,
            output_tokens=done.output_tokens,
            finish=done.finish,
            first_us=round((made.first - made.began) * 1e6),
            total_us=round((now - made.began) * 1e6),
            time_ms=self.unix_ms(),
            height=self.height(),
            engine=engine,
            cost=made.cost,
            parts=parts_hash(made.parts),
            trace=trace_hash(made.trace),
        )
        return sign_receipt(body, self.pair)


def prices_of(entries: Sequence[str]) -> dict[str, int]:
    """The prices that settings such as docs-gpt=10000 name, by model."""
    pairs = (each.rpartition("=") for each in entries)
    return {name: int(price) for name, _, price in pairs}


def _single(error: BaseException) -> BaseException:
    """The one exception inside nested groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
