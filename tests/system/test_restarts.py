"""Nodes that are killed and come back, the bootstrap among them."""

import time
from collections.abc import Callable
from functools import partial

import pytest
import trio

from ledger.keys import public_key_of

from .speaker import Speaker, speaking
from .swarm import POLL_S, Daemon, Swarm, free_port, wait_until, whole

FLOWS_AGAIN_S = 5.0
SAY_EVERY_S = 1.1


def test_the_swarm_outlives_its_bootstrap(swarm: Swarm) -> None:
    """Given a swarm of four that met through one bootstrap, one of them away for now,
    when the bootstrap is killed,
    then the others stay connected, and the one that was away is back through a peer it remembers,
    though its only configured bootstrap is dead."""
    first = swarm.start()
    rest = [swarm.make(bootstrap=[first.address]) for _ in range(3)]
    swarm.start_all(*rest)
    whole([first, *rest])
    b, c, away = rest
    ids = {each.peer_id for each in rest}
    for one in rest:  # each of them has met the others, and not only heard of them
        wait_until(lambda one=one: ids - {one.peer_id} <= set(one.peers()), 40, "all connected")
    away_id, connected = away.peer_id, b.peers()[c.peer_id]["connected_s"]
    assert away.stop() == 0
    gone = first.peer_id
    first.kill()
    wait_until(lambda: gone not in b.peers() and gone not in c.peers(), 40, "the loss being seen")
    away.start().ready()
    assert away.peer_id == away_id
    wait_until(lambda: set(away.peers()) & ids, 40, "a remembered peer being reached")
    wait_until(lambda: away_id in b.nodes() and away_id in c.nodes(), 40, "the others knowing it")
    assert b.peers()[c.peer_id]["connected_s"] >= connected, "they were never apart"
    states = {row["state"] for row in away.status()["bootstrap"]}
    assert "connected" not in states


async def test_gossip_flows_after_each_restart(swarm: Swarm) -> None:
    """Given two daemons, and a speaker that is heard by gossip only and through the first only,
    when the second is killed and started with the same key and port, five times over,
    then each time, within 5 s of its being ready, the speaker hears a newer record of it, and it
    hears the speaker's newest."""
    await _restarts(swarm, 5)


@pytest.mark.campaign
@pytest.mark.timeout(400)
async def test_gossip_flows_after_twenty_restarts(swarm: Swarm) -> None:
    """The same, twenty times."""
    await _restarts(swarm, 20)


async def _restarts(swarm: Swarm, times: int) -> None:
    hub = await trio.to_thread.run_sync(swarm.start)
    listen = f"/ip4/127.0.0.1/tcp/{free_port()}"
    make = partial(swarm.make, bootstrap=[hub.address], listen=[listen])
    daemon = await trio.to_thread.run_sync(lambda: make().start().ready())
    waits = []
    async with speaking() as speaker, trio.open_nursery() as nursery:
        await speaker.dial(hub.address)
        nursery.start_soon(_speak, speaker)
        await _flows(daemon, speaker, 0)
        for _ in range(times):
            before = speaker.seqs[public_key_of(daemon.peer_id)]
            await trio.to_thread.run_sync(_restart, daemon)
            waits.append(await _flows(daemon, speaker, before))
        nursery.cancel_scope.cancel()
    print("gossip flowed again after", [round(wait, 2) for wait in waits])
    assert max(waits) <= FLOWS_AGAIN_S


def _restart(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start().ready()


async def _speak(speaker: Speaker) -> None:
    while True:
        await speaker.say()
        await trio.sleep(SAY_EVERY_S)


async def _flows(daemon: Daemon, speaker: Speaker, before: int) -> float:
    """The seconds until both have heard something new of each other."""
    began = time.monotonic()
    key = public_key_of(daemon.peer_id)
    await _until(lambda: speaker.seqs.get(key, 0) > before)
    first_known = 0.0

    def renewed() -> bool:
        """A record that is younger than what we have known of it: it came by gossip, not with
        the records that a new neighbour hands over."""
        nonlocal first_known
        row = daemon.nodes().get(speaker.pair.peer_id)
        if row is None:
            return False
        first_known = first_known or time.monotonic()
        return bool(row["age_s"] < time.monotonic() - first_known)

    await _until(renewed)
    return time.monotonic() - began


async def _until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    with trio.fail_after(timeout_s):
        while not await trio.to_thread.run_sync(holds):
            await trio.sleep(POLL_S)
