"""The book of vouchers: whole after a kill, synced when told, refused where it is damaged."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.channels import promise
from ledger.errors import Invalid, Reason
from ledger.types import Hash
from p2p.node.cashbook import Cashbook, Earned
from tests.ledger.world import CHAIN, key, public
from tests.test_layers import ROOT

CHANNEL = Hash(b"c" * 32)
VOUCHERS = [promise(CHAIN, CHANNEL, rao, key("ann")) for rao in (100, 250)]
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.node.test_cashbook import VOUCHERS
from tests.ledger.world import public
from p2p.node.cashbook import Cashbook
book = Cashbook(Path(sys.argv[1]), 0)
book.take(public("ann"), VOUCHERS[0], [])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.db"


def test_the_highest_voucher_and_what_it_was_for_are_kept(path: Path) -> None:
    book = Cashbook(path, 7)
    book.take(public("ann"), VOUCHERS[0], [Earned(public("ann"), "m", 1, 10, 100)])
    book.take(public("ann"), VOUCHERS[1], [Earned(public("ann"), "m", 1, 15, 150)])
    book.claimed(public("ann"), CHANNEL, 0, 100)
    book.close()
    book = Cashbook(path, 9)
    assert book.vouchers() == [(public("ann"), VOUCHERS[1], 100)]
    assert book.earnings() == [Earned(public("ann"), "m", 2, 25, 250)]
    assert (book.claims(), book.since_ms) == ({public("ann"): 100}, 7)
    book.drop_voucher(CHANNEL)
    assert (book.vouchers(), book.claims()) == ([], {public("ann"): 100})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_that_is_killed_has_kept_what_it_took(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert Cashbook(path, 0).vouchers() == [(public("ann"), VOUCHERS[0], 0)]


def test_what_was_synced_is_in_the_file_itself(path: Path, tmp_path: Path) -> None:
    """Given a power cut that takes the log which lies beside the file."""
    book = Cashbook(path, 0)
    book.take(public("ann"), VOUCHERS[0], [])
    book.sync()
    book.take(public("ann"), VOUCHERS[1], [])
    after = shutil.copy(path, tmp_path / "after.db")
    assert Cashbook(Path(after), 0).vouchers() == [(public("ann"), VOUCHERS[0], 0)]
    assert book.vouchers() == [(public("ann"), VOUCHERS[1], 0)]


def test_a_change_that_fails_leaves_the_book_as_it_was(path: Path) -> None:
    book = Cashbook(path, 0)
    with pytest.raises(AttributeError):
        book.take(public("ann"), VOUCHERS[0], [None])  # type: ignore[list-item]
    assert book.vouchers() == []
    book.take(public("ann"), VOUCHERS[0], [])


def test_a_damaged_book_is_refused(path: Path) -> None:
    path.write_bytes(b"nothing that SQLite wrote" * 100)
    with pytest.raises(Invalid, match=str(path)) as caught:
        Cashbook(path, 0)
    assert caught.value.reason == Reason.CORRUPT
