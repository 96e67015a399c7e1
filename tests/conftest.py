"""What holds for all tests, and in which order their files are run."""

import gc
from itertools import chain, groupby, zip_longest
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None)  # the machine may be busy otherwise
settings.load_profile("steady")
gc.disable()  # until all is collected: there is little garbage in it, and much to go through

WAITING = ("system", "dashboard", "cli")
"""Folders whose tests wait for daemons more than they compute."""
COMPUTING = ("simulate", "economy", "gossip", "consensus", "models", "node", "ledger", "net")
"""Of the others those with the longer files: one of them at the end would be waited for alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files that wait and files that compute take turns, so that no core is ever idle."""
    files = [list(file) for _, file in groupby(items, lambda item: item.path)]
    waiting = [file for file in files if _folder_of(file) in WAITING]
    computing = [file for file in files if _folder_of(file) not in WAITING]
    waiting.sort(key=lambda file: WAITING.index(_folder_of(file)))
    computing.sort(key=lambda file: (*COMPUTING, _folder_of(file)).index(_folder_of(file)))
    turns = zip_longest(waiting, computing, fillvalue=())
    items[:] = chain.from_iterable(chain.from_iterable(turns))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was collected: it stays to the end."""
    gc.freeze()
    gc.enable()


def _folder_of(file: list[pytest.Item]) -> str:
    return file[0].path.relative_to(Path(__file__).parent).parts[0]
