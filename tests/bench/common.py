"""What the benches share: daemons as processes, the library's host as it comes, small tables."""

import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise

ROOT = Path(__file__).resolve().parents[2]
LISTEN = "/ip4/127.0.0.1/tcp/0"
ANY_PORT = "127.0.0.1:0"
READY = "Daemon is ready"
JOIN = "--bootstrap "


@dataclass
class Daemon:
    """A daemon of its own home."""

    home: Path
    process: subprocess.Popen[str]
    address: str
    ready_s: float
    """From the start of the process to the line that says it can be joined."""


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of this checkout whose lines are read; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if "--verbose" in sys.argv else subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    """The next line that a process says. Raises RuntimeError at its end."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"{child.args!r} ended; see why with --verbose")
    return line.strip()


@contextmanager
def daemon(home: Path, *flags: str) -> Iterator[Daemon]:
    """A daemon that is ready."""
    began = time.monotonic()
    here = ("--listen", LISTEN, "--gateway", ANY_PORT)
    command = ("-m", "p2p", "daemon", "--home", str(home), *here, *flags)
    with process(*command) as child:
        address = ""
        while (line := line_of(child)) != READY:
            if JOIN in line:
                address = line.partition(JOIN)[2]
        yield Daemon(home, child, address, time.monotonic() - began)


def stock_host() -> Any:
    """The library's host as it comes, but for Noise only: what ours is compared with."""
    keys = create_new_key_pair()
    noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
    return new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")


def percentile(values: Sequence[float], percent: int) -> float:
    """One percentile of some values."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def milliseconds(values: Sequence[float]) -> dict[str, float]:
    """Median and tail of some seconds, in milliseconds."""
    return {
        "p50_ms": round(median(values) * 1000, 3),
        "p99_ms": round(percentile(values, 99) * 1000, 3),
    }


def arguments(doc: str) -> ArgumentParser:
    """The options that all benches have."""
    parser = ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="a small run that only checks itself")
    parser.add_argument("--verbose", action="store_true", help="let the processes say what is up")
    return parser


def show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print the rows of a result: JSON, or a table."""
    if as_json:
        print(dumps(rows))
        return
    for row in rows:
        name, *cells = row.items()
        print(f"{name[1]:34}", "  ".join(f"{key} {value}" for key, value in cells))
