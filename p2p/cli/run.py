"""Asking a model: run."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from p2p.cli import receipts, tensors
from p2p.cli.answers import (
    Answers,
    Question,
    ask,
    heading,
    print_statistics,
    print_verification,
    write_now,
)
from p2p.cli.command import Command, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, printable


def _check_temperature(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Hold the range; click's own lets `nan` through."""
    if not 0 <= value <= 10:
        raise click.BadParameter(f"{value} is not from 0 to 10", context, parameter)
    return value


@click.command(cls=Command)
@click.argument("model")
@click.argument("prompt", required=False)
@click.option(
    "--choose",
    metavar="TEXT",
    multiple=True,
    help="What may follow the PROMPT; given twice or more, says how probable each is.",
)
@click.option(
    "--near",
    metavar="TEXT",
    multiple=True,
    help="Says how near TEXT is to the PROMPT, by their embeddings.",
)
@click.option("--chat", is_flag=True, help="The PROMPT is a message of a chat.")
@click.option("--peer", metavar="ID", help="Ask this node and no other.")
@click.option("--ask", metavar="K", type=click.IntRange(1, 16), help="Take answers of K nodes.")
@click.option(
    "--verify", metavar="K", type=click.IntRange(1, 8), help="Have K other servers check it."
)
@click.option(
    "--max-tokens", type=click.IntRange(1, 65_536), default=Question.max_tokens, show_default=True
)
@click.option(
    "--temperature",
    type=float,
    default=Question.temperature,
    callback=_check_temperature,
    help="0, the default, is greedy.",
)
@click.option(
    "--top-k",
    type=click.IntRange(0, 2**31),
    default=Question.top_k,
    help="Of the K likeliest only.",
)
@click.option("--seed", metavar="S", type=click.IntRange(0, 2**63 - 1), help="Repeats a choice.")
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.IntRange(1, 600),
    default=Question.time_limit_s,
    metavar="SECONDS",
    show_default=True,
)
@click.option(
    "--receipt",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the signed receipts here.",
)
@click.option(
    "--input",
    "input_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A tensor, no prompt: .safetensors with "input", or .npy.',
)
@click.option(
    "--output",
    "output_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the answered tensor here, as .safetensors or .npy.",
)
@json_option
def run(
    model: str,
    prompt: str | None,
    choose: tuple[str, ...],
    near: tuple[str, ...],
    chat: bool,
    verify: int | None,
    receipt: Path | None,
    input_file: Path | None,
    output_file: Path | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Ask MODEL and print its answer as it comes.

    MODEL is a name or the head of a digest; the PROMPT may come from standard input.
    """
    _check_files(receipt, input_file, output_file)
    if input_file is not None and prompt is not None:
        raise click.UsageError("a prompt and --input cannot go together")
    if choose and (input_file is not None or len(choose) < 2):
        raise click.UsageError("--choose is given at least twice, and with a prompt")
    if sum((bool(choose), bool(near), chat, input_file is not None)) > 1:
        raise click.UsageError("--choose, --near, --chat and --input do not go together")
    if verify and (choose or near or input_file is not None or limits["ask"] is not None):
        raise click.UsageError("--verify goes with one answer in text")
    text = _prompt(prompt) if input_file is None else None
    tensor = None if input_file is None else tensors.read_tensor(input_file)
    follow = _following(text or "", choose)
    question = Question(model, text, tensor, follow, near, chat, verify=verify or 0, **limits)
    answers = ask(current_client(), question, live=not as_json)
    if receipt is not None:
        receipts.save(receipt, [item for one in answers.done for item in one["receipts"]])
    if output_file is not None:
        tensors.write_tensor(output_file, _only_tensor(answers))
    if as_json:
        print_json(_as_json(answers, choose))
        return _check_verified(answers)
    _print_rest(answers, choose, near, tensors_too=output_file is None)
    print_statistics(answers)
    if question.ask is not None and len(answers.done) < question.ask:
        note(f"{len(answers.done)} of {question.ask} nodes answered")
    _check_verified(answers)


def _check_verified(answers: Answers) -> None:
    """Say what checkers found, where they were asked. Raises Failure unless they agree."""
    for one in answers.done:
        if "verified" in one:
            print_verification(one["verified"])


def _check_files(receipt: Path | None, input_file: Path | None, output_file: Path | None) -> None:
    """Refuse what would fail only after the answer is there."""
    if output_file is not None and input_file is None:
        raise click.UsageError("--output is for an answered tensor and goes with --input")
    if output_file is not None and output_file.suffix not in tensors.SUFFIXES:
        raise click.UsageError(f"--output has to end in {' or '.join(tensors.SUFFIXES)}")
    for path in (receipt, output_file):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no directory {path.absolute().parent}")


def _prompt(given: str | None) -> str:
    """The prompt of the command line, or of standard input where it is not a terminal."""
    prompt = given
    if prompt is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError(
                'no prompt is given, as in: yuma run docs-gpt "The for statement"'
            )
        prompt = _standard_input()
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    try:
        prompt.encode()
    except UnicodeEncodeError:  # what Python makes of bytes in argv that are not UTF-8
        raise click.UsageError("the prompt is not UTF-8 text") from None
    return prompt


def _standard_input() -> str:
    from models.types import MAX_INPUT_BYTES  # keys and messages: not where the prompt is given

    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise click.UsageError(f"the prompt is over {MAX_INPUT_BYTES} bytes")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise click.UsageError("the prompt is not UTF-8 text") from None


def _following(prompt: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The choices as they go on after the prompt: the next word comes after a space."""
    spaced = prompt[-1:].isspace()
    return tuple(
        text if spaced or text[:1].isspace() or not text else " " + text for text in choices
    )


def _print_rest(
    answers: Answers, choices: tuple[str, ...], near: tuple[str, ...], tensors_too: bool
) -> None:
    """Print what was not printed as it came."""
    for index, done in answers.ended():
        if len(answers.ended()) > 1 and index != answers.live:
            click.echo(heading(done["server"]))
        if (text := answers.text(index)) and index != answers.live:
            write_now(text if text.endswith("\n") else text + "\n")
        if choices:
            for text, share in _ranked(choices, answers.tensors[index]):
                click.echo(f"{100 * share:5.1f} %  {printable(text)}")
        elif near:
            for text, cosine in _nearest(near, answers.tensors[index]):
                click.echo(f"{cosine:7.3f}  {printable(text)}")
        elif tensors_too and index in answers.tensors:
            click.echo(tensors.json_text(answers.tensors[index]))


def _ranked(choices: tuple[str, ...], tensor: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The choices with their probabilities, the best first."""
    shares = tensors.array_of(tensor).tolist()
    return sorted(zip(choices, shares, strict=True), key=lambda pair: -pair[1])


def _nearest(texts: tuple[str, ...], tensor: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The texts with the cosine of each to the prompt, whose vector is the first; best first."""
    first, *others = tensors.array_of(tensor)
    cosines = [float(first @ other) for other in others]
    return sorted(zip(texts, cosines, strict=True), key=lambda pair: -pair[1])


def _only_tensor(answers: Answers) -> Mapping[str, Any]:
    if len(answers.tensors) != 1:
        raise Failure(
            f"{len(answers.tensors)} tensors came, and --output keeps one", "leave out --ask"
        )
    return next(iter(answers.tensors.values()))


def _as_json(answers: Answers, choices: tuple[str, ...]) -> dict[str, Any]:
    """The one object of `run --json`."""
    whole = []
    for index, done in answers.ended():
        tensor = answers.tensors.get(index)
        whole.append({"text": answers.text(index), "tensor": tensor, **done})
        if choices and tensor is not None:
            whole[-1]["choices"] = [
                {"text": text, "probability": share} for text, share in _ranked(choices, tensor)
            ]
    return {"answers": whole, "resumed": answers.resumed}


COMMANDS = (run,)
