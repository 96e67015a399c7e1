"""Epochs and blocks have one result, on every machine: integers only, whatever libraries do.

Floats fail this: with other kernels of OpenBLAS the last bits of a float epoch's dividends differ.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from consensus.replay import read_input
from consensus.yuma import epoch
from tests.consensus.digest import arrays_of
from tests.consensus.subnets import MODES, subnet

ROOT = Path(__file__).parents[2]
MODULES = (
    *("consensus/fixed", "consensus/rows", "consensus/weights", "consensus/bonds"),
    *("consensus/yuma", "consensus/replay", "consensus/vrf", "consensus/lottery"),
    *("consensus/attendance", "consensus/intelligence", "consensus/rotation", "ledger/terms"),
)
BANNED = {"float", "float64", "float32", "true_divide", "mean", "random", "set", "hash"}
MACHINES = (
    {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    {"OPENBLAS_CORETYPE": "Haswell", "PYTHONHASHSEED": "1", "OPENBLAS_NUM_THREADS": "2"},
    {"OPENBLAS_CORETYPE": "Nehalem", "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2"},
    {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 FMA3 AVX512F AVX512_SKX AVX512_ICL"},
)
"""The last takes numpy's own kernels for newer processors away, sorting among them."""


def digest_on(machine: dict[str, str]) -> str:
    """The digest of many epochs, and of some blocks, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.consensus.digest"],
        cwd=ROOT,
        env={**os.environ, **machine},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_all_machines_agree() -> None:
    digests = {digest_on(machine) for machine in MACHINES}
    assert len(digests) == 1
    assert len(digests.pop()) == 128


@pytest.mark.parametrize("mode", MODES)
def test_results_are_integers(mode: str) -> None:
    for array in arrays_of(epoch(read_input(subnet(Random(1), 24, mode)))):
        assert array.dtype.kind in "iub"


@pytest.mark.parametrize("name", MODULES)
def test_the_source_has_no_floats(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text())):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not isinstance(node, ast.Div | ast.SetComp | ast.Set)
        assert not (isinstance(node, ast.Attribute) and node.attr in BANNED)
        assert not (isinstance(node, ast.Name) and node.id in BANNED)
