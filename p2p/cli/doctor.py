"""What may be wrong with this node, its machine and its swarm, and what helps: doctor."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import click

from p2p.cli.checks import (
    Check,
    Verdict,
    check_clock,
    check_descriptors,
    check_disk,
    check_free,
    check_home,
    check_key,
    check_member,
    check_memory,
    check_settings,
    free_memory,
    gateway_address,
    passed,
)
from p2p.cli.checks_running import (
    check_bootstraps,
    check_clock_of_peers,
    check_ledger,
    check_listening,
    check_open,
    check_peers,
    check_reach,
    check_ready,
)
from p2p.cli.client import Client
from p2p.cli.command import Command, current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.show import aligned, print_json, printable, time_text
from p2p.home import Home

CUT_OFF_HINT = "see member, above: a private swarm cuts off whom its admin does not let in"


@click.command(cls=Command)
@json_option
def doctor(as_json: bool) -> None:
    """Check home, machine, daemon and swarm.

    The exit code is 1 where a check fails.
    """
    checks = list(_checks(current_home()))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        click.echo(_report(checks))
    failed = sum(1 for check in checks if check.verdict is Verdict.FAIL)
    if failed:
        raise Failure(f"{failed} of {len(checks)} checks failed")


def _report(checks: Sequence[Check]) -> str:
    lines = aligned(
        [(check.verdict.ljust(4), check.name, printable(check.detail)) for check in checks]
    )
    whole = []
    for line, check in zip(lines.split("\n"), checks, strict=True):
        whole.append(line)
        if check.hint:
            whole.append(f"      hint: {printable(check.hint)}")
    return "\n".join(whole)


def _checks(home: Home) -> Iterator[Check]:
    """All checks, those of the daemon only where it answers."""
    yield check_home(home)
    yield check_key(home)
    members = list(check_member(home, time.time()))
    yield from members
    settings, check = check_settings(home)
    yield check
    yield check_clock(time.time())
    yield check_disk(home)
    yield check_memory(free_memory())
    yield check_descriptors(settings)
    client = Client(home)
    try:
        status = client.get("/v0/status")
        listening = client.get("/v0/swarm/addrs")["listen"]
    except Failure as failure:
        yield Check(Verdict.FAIL, "daemon", failure.message, failure.hint)
        places = [*settings.listen, *filter(None, [gateway_address(settings.gateway)])]
        yield from (check_free(address) for address in places)
        return
    yield passed("daemon", f"up for {time_text(status['uptime_s'])}")
    yield check_ready(status)
    yield from check_listening(listening)
    if gateway := client.get("/v0/id")["gateway"]:
        yield from check_listening([gateway_address(gateway.removeprefix("http://"))], "gateway")
    for check in (*check_bootstraps(status), check_peers(status)):
        is_cut_off = check.hint and members and members[0].hint
        yield replace(check, hint=CUT_OFF_HINT) if is_cut_off else check
    yield check_reach(status["reach"], listening)
    yield check_clock_of_peers(status["clock_ahead_s"])
    yield check_open(status)
    if status["chain"] is not None:
        yield check_ledger(status["chain"])


COMMANDS = (doctor,)
