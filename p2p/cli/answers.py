"""A question to a model by the local API, and the answers as they come."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from p2p.cli.client import Client
from p2p.cli.command import note
from p2p.cli.failure import Failure
from p2p.cli.show import printable
from p2p.cli.submit import tokens

GRACE_S = 60.0
"""Beyond the time limit, for finding a server, dialling it, and going on at another."""
CHECK_S = 130.0
"""The same for two rounds of checks."""
UNVERIFIED = 3
"""Exit code: there is an answer, and it was not verified as asked."""


@dataclass(frozen=True)
class Question:
    """What the API takes; of prompt and tensor exactly one is given."""

    model: str
    prompt: str | None
    tensor: Mapping[str, Any] | None = None
    choose: tuple[str, ...] = ()
    """What may follow the prompt: not text is wanted but how probable each is."""
    near: tuple[str, ...] = ()
    """Texts to be embedded after the prompt: how near each is to it is what is wanted."""
    chat: bool = False
    """The prompt is a message, which the model's chat template puts into words."""
    peer: str | None = None
    ask: int | None = None
    """How many nodes have to answer; None: one, and its answer is not numbered."""
    verify: int = 0
    """How many others have to check the answer."""
    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    seed: int | None = None
    """None: another one each time; greedy answers need none."""
    time_limit_s: int = 120


@dataclass
class Answers:
    """What has come so far; answers are numbered where several were asked for."""

    servers: dict[int, str] = field(default_factory=dict)
    """Who gives each, the last where one went away."""
    pieces: dict[int, list[str]] = field(default_factory=dict)
    tensors: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    resumed: list[Mapping[str, Any]] = field(default_factory=list)
    done: list[Mapping[str, Any]] = field(default_factory=list)
    """How each ended that did; empty until all have."""
    live: int | None = None
    """The one that is printed as it comes."""

    def text(self, index: int) -> str | None:
        """The text of one answer so far; None where there is none."""
        pieces = self.pieces.get(index)
        return None if pieces is None else "".join(pieces)

    def ended(self) -> list[tuple[int, Mapping[str, Any]]]:
        """The number of each answer that ended well, and how."""
        ends = {one["server"]: one for one in self.done}
        served = sorted(self.servers.items())
        return [(index, ends[server]) for index, server in served if server in ends]


def ask(client: Client, question: Question, live: bool) -> Answers:
    """All answers to a question; with `live` the first is printed as it comes."""
    patience = question.time_limit_s + GRACE_S + (CHECK_S if question.verify else 0)
    stream = client.stream("/v0/run", asdict(question), patience)
    answers = Answers()
    try:
        _collect(stream, answers, live, several=question.ask is not None)
    finally:
        if answers.live is not None and not (answers.text(answers.live) or "").endswith("\n"):
            click.echo()
    if not answers.done:
        raise Failure(
            "the daemon went away in mid-answer",
            "its log says why; start it again with: yuma daemon",
        )
    return answers


def _collect(
    stream: Iterable[Mapping[str, Any]], answers: Answers, live: bool, several: bool
) -> None:
    for item in stream:
        index = item.get("answer", 0)
        match item:
            case {"server": server}:
                answers.servers[index] = server
            case {"opening": server, "rao": rao}:
                what = f"locking {tokens(rao)} in" if rao else "prolonging"
                note(f"{what} a channel to {server}; it takes some blocks")
            case {"text": text}:
                answers.pieces.setdefault(index, []).append(text)
                if live:
                    _print_live(answers, index, text, several)
            case {"tensor": tensor}:
                answers.tensors[index] = tensor
            case {"resumed": server, "after_tokens": count, "reason": reason}:
                answers.servers[index] = server
                answers.resumed.append(item)
                note(f"\n{reason}; {server} goes on after {count} tokens")
            case {"done": {"answers": done}}:
                answers.done = done


def _print_live(answers: Answers, index: int, text: str, several: bool) -> None:
    """Print a piece of the answer that began first; the others wait for its end."""
    if answers.live is None:
        answers.live = index
        if several:
            click.echo(heading(answers.servers[index]))
    if index == answers.live:
        write_now(text)


def heading(server: str) -> str:
    """The line over one of several answers."""
    return f"--- {server}"


def write_now(text: str) -> None:
    """Print a piece of an answer now; on a terminal without what could steer it."""
    if sys.stdout.isatty():
        text = "".join(letter if letter in "\n\t" else printable(letter) for letter in text)
    click.echo(text, nl=False)


def print_statistics(answers: Answers) -> None:
    """Say on stderr who answered, how much and how fast."""
    for one in answers.done:
        speed = f", {one['tokens_per_s']:.1f} tokens/s" if one["output_tokens"] else ""
        cost = f", cost {tokens(one['cost'])}" if one["cost"] else ""
        note(
            f"{one['server']}: {one['finish']}, "
            f"{one['prompt_tokens']} + {one['output_tokens']} tokens, "
            f"first after {one['first_ms']:.0f} ms, all after {one['total_ms']:.0f} ms{speed}{cost}"
        )


def print_verification(verified: Mapping[str, Any]) -> None:
    """Say on stderr what the checkers found. Raises Failure unless all asked for agree."""
    for one in verified["checks"]:
        found = "agrees" if one["agrees"] else "does not agree"
        note(
            f"{one['checker']} {found}: {verified['tokens']} tokens, "
            f"apart by {one['mean']:.1e} on average, {one['worst']:.1e} at most"
            + (", and is wrong by the others" if one["wrong"] else "")
        )
    count = f"{verified['agreed']} of {verified['asked']}"
    found = f"{verified['agreed']} of {len(verified['checks'])}"
    if verified["outcome"] == "wrong":
        raise Failure(
            f"the answer is not the model's: {found} checkers agree with its server",
            "ask again: this server is asked last from now on",
            UNVERIFIED,
        )
    if verified["outcome"] == "disputed":
        raise Failure(
            f"the answer is disputed: {found} checkers agree with its server",
            "with more checkers it can be told who is wrong: --verify 2",
            UNVERIFIED,
        )
    if verified["problem"]:
        raise Failure(
            f"the answer is not verified as asked: {count} checkers agree; {verified['problem']}",
            "see who serves the model with: yuma list --swarm",
            UNVERIFIED,
        )
    note(f"verified by {count}")
