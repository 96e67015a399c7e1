"""Completion: the script of each shell, and what may follow."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import ROOT, Yuma, environment


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(within: Yuma, shell: str) -> None:
    script = within("completion", shell)
    assert script.code == 0
    assert f"_YUMA_COMPLETE={shell}_complete" in script.out


def test_bash_completes_commands_and_flags(tmp_path: Path) -> None:
    """Given the script, and a yuma on the path; then bash itself says what may follow."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "yuma"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m p2p "$@"\n')
    program.chmod(0o755)
    asked = """
eval "$(yuma completion bash)"
complete_line() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _yuma_completion yuma
    echo "${COMPREPLY[@]}"
}
complete_line yuma stat
complete_line yuma status --wa
complete_line yuma guide s
"""
    path = f"{tmp_path}:{Path(bash).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [bash, "-c", asked],
        capture_output=True,
        cwd=ROOT,
        env=environment(PATH=path, YUMA_HOME=str(tmp_path)),
        check=True,
        text=True,
    )
    assert done.stdout.split("\n")[:3] == ["status", "--watch", "start security"]
