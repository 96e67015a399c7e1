"""A question to a model by the local API, and the answers as they come."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from p2p.cli.client import Client
from p2p.cli.command import note
from p2p.cli.failure import Failure
from p2p.cli.show import printable

GRACE_S = 60.0
"""Beyond the time limit, for finding a server, dialling it, and going on at another."""


@dataclass(frozen=True)
class Question:
    """What the API takes; of prompt and tensor exactly one is given."""

    model: str
    prompt: str | None
    tensor: Mapping[str, Any] | None = None
    peer: str | None = None
    ask: int | None = None
    """How many nodes have to answer; None: one, and its answer is not numbered."""
    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    seed: int | None = None
    """None: another one each time; greedy answers need none."""
    time_limit_s: int = 120


@dataclass
class Answers:
    """What has come so far; answers are numbered from 0 where several were asked for."""

    pieces: dict[int, list[str]] = field(default_factory=dict)
    tensors: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    resumed: list[Mapping[str, Any]] = field(default_factory=list)
    done: list[Mapping[str, Any]] = field(default_factory=list)
    """How each ended; empty until all have."""

    def text(self, index: int) -> str | None:
        """The text of one answer so far; None where there is none."""
        pieces = self.pieces.get(index)
        return None if pieces is None else "".join(pieces)

    def numbered(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """How each ended, with its number: where one failed, the numbers have a gap."""
        for position, one in enumerate(self.done):
            yield one.get("answer", position), one


def ask(client: Client, question: Question, live: bool) -> Answers:
    """All answers to a question; with `live` the first is printed as it comes."""
    stream = client.stream("/v0/run", asdict(question), question.time_limit_s + GRACE_S)
    answers = Answers()
    try:
        _collect(stream, answers, live, several=question.ask is not None)
    finally:
        if live and not (answers.text(0) or "\n").endswith("\n"):
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
            case {"server": str(server)} if live and several and index == 0:
                click.echo(heading(0, server))
            case {"text": str(text)}:
                answers.pieces.setdefault(index, []).append(text)
                if live and index == 0:
                    write_now(text)
            case {"tensor": tensor}:
                answers.tensors[index] = tensor
            case {"resumed": _}:
                answers.resumed.append(item)
                where = f"{item['resumed']} goes on after {item['after_tokens']} tokens"
                note(f"\n{item['reason']}; {where}")
            case {"done": {"answers": [*done]}}:
                answers.done = done


def heading(index: int, server: str) -> str:
    """The line over one of several answers."""
    return f"--- answer {index + 1}, {server}"


def write_now(text: str) -> None:
    """Print a piece of an answer now; on a terminal without what could steer it."""
    if sys.stdout.isatty():
        text = "".join(letter if letter in "\n\t" else printable(letter) for letter in text)
    click.echo(text, nl=False)


def print_statistics(answers: Answers) -> None:
    """Say on stderr who answered, how much and how fast."""
    for one in answers.done:
        note(
            f"{one['server']}: {one['finish']}, "
            f"{one['prompt_tokens']} + {one['output_tokens']} tokens, "
            f"first after {one['first_ms']:.0f} ms, all after {one['total_ms']:.0f} ms, "
            f"{one['tokens_per_s']:.1f} tokens/s"
        )
