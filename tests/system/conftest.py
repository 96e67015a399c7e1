"""Each test's own swarm, one for a module, and the logs of the daemons in a failure's report."""

from collections.abc import Iterator

import pytest

from .swarm import Swarm, running_swarm


@pytest.fixture
def swarm(request: pytest.FixtureRequest) -> Iterator[Swarm]:
    """Daemons of one test."""
    with running_swarm() as made:
        request.node.swarms = [*getattr(request.node, "swarms", ()), made]
        yield made


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Swarm]:
    """Daemons that the tests of a module share."""
    with running_swarm() as made:
        request.node.shared = made
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Add the ends of the daemons' logs to a failure."""
    report = yield
    if report.failed and call.when in ("setup", "call"):
        swarms = list(getattr(item, "swarms", ()))
        module = item.getparent(pytest.Module)
        swarms += [made for made in [getattr(module, "shared", None)] if made is not None]
        for daemon in [each for made in swarms for each in made.daemons]:
            report.sections.append((f"log of {daemon.home.name}", daemon.tail()))
    return report
