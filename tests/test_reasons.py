"""Every reason of refusal is asserted somewhere."""

import re

import pytest

from ledger.errors import Reason
from tests.test_layers import ROOT

ASSERTED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"\bReason\.([A-Z_]+)", path.read_text())
}


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_a_test_asserts_it(reason: Reason) -> None:
    assert reason.name in ASSERTED
