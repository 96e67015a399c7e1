"""Wallets for tests of the command line, and a terminal to type passwords on."""

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledger.address import address_of
from ledger.wallet import LEAST_COST, Draw, WalletFile, pair_of, seal, words_of
from tests.cli.command_line import ROOT, Outcome, environment

ENTROPY = bytes(range(32))
PAIR = pair_of(ENTROPY)
ADDRESS, WORDS = address_of(PAIR.public), words_of(ENTROPY)
PASSWORD = "korrekt horse"
LOCKED = seal(ENTROPY, PASSWORD, Draw(b"s" * 16, b"n" * 24), LEAST_COST)
OPEN = seal(ENTROPY, None, Draw(b"s" * 16, b"n" * 24))


def put(home: Path, name: str, file: WalletFile) -> Path:
    """Have a wallet in a home that opens fast."""
    (home / "wallets").mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / "wallets" / f"{name}.json"
    path.write_bytes(file.encode())
    return path


def json_of(outcome: Outcome) -> Any:
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def failed(outcome: Outcome, sentence: str, code: int = 1) -> bool:
    """Whether a command failed as all do: one sentence that has these words, perhaps a hint."""
    first, *hint = outcome.err.rstrip("\n").split("\n")
    assert sentence in first
    assert len(hint) <= 1
    assert all(line.startswith("hint: ") for line in hint)
    return (outcome.code, outcome.out) == (code, "")


def at_terminal(
    home: Path, arguments: Sequence[str], dialogue: Sequence[tuple[str, str]]
) -> Outcome:
    """A command that has a terminal, on which each question gets its answer."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "p2p", *arguments],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        cwd=ROOT,
        env=environment(YUMA_HOME=str(home)),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    seen = ""
    for question, answer in dialogue:
        while question not in seen.rpartition("\n")[2]:
            seen += os.read(master, 4096).decode()
        seen += "\n"
        os.write(master, os.fsencode(answer) + b"\n")
    out, _ = process.communicate(timeout=60)
    try:
        while more := os.read(master, 4096).decode():
            seen += more
    except OSError:  # the other side is closed and all is read
        os.close(master)
    return Outcome(process.returncode, out.decode(), seen)
