"""Processes of `yuma` forked from one that has imported it, so that a start costs no second of CPU.

Everything else is as where it is started by its name: the process has its own session, place,
environment and files, and ends in its own way.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

PRELOADED = ["p2p.cli", "p2p.node.daemon"]


class Fork:
    """What the tests use of subprocess.Popen."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdin: Path | None = None,
        stdout: Path,
        stderr: Path,
        cwd: Path,
        env: Mapping[str, str],
    ) -> None:
        """Begin `yuma` with its arguments; what it prints replaces what the files hold."""
        for path in (stdout, stderr):
            path.write_bytes(b"")
        files = (stdin or Path(os.devnull), stdout, stderr)
        self._process = _server().Process(target=_run, args=(list(arguments), files, cwd, env))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("yuma", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def call(
    arguments: Sequence[str], *, stdin: bytes, cwd: Path, env: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[bytes]":
    """Run `yuma` to its end, as subprocess.run does."""
    with TemporaryDirectory() as place:
        given, out, err = (Path(place, name) for name in ("in", "out", "err"))
        given.write_bytes(stdin)
        fork = Fork(arguments, stdin=given, stdout=out, stderr=err, cwd=cwd, env=env)
        try:
            code = fork.wait(timeout)
        finally:
            fork.kill()
        return subprocess.CompletedProcess(arguments, code, out.read_bytes(), err.read_bytes())


@cache
def _server() -> ForkServerContext:
    """Start what is forked: it has one thread, and nothing of the tests' process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def _run(
    arguments: list[str], files: tuple[Path, Path, Path], cwd: Path, env: Mapping[str, str]
) -> None:
    from p2p.cli import main

    os.setsid()
    os.chdir(cwd)
    for number, path in enumerate(files):
        opened = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.argv = ["yuma", *arguments]
    sys.exit(main())
