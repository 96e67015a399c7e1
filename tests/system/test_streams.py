"""Many applications at one gateway at once: none is lost, and those who do not read harm nobody."""

import json
import time

import psutil
import pytest

from tests.cli.applications import TOKENS, Door, Stream, door, run_all
from tests.cli.command_line import wait_until

__all__ = ["door"]

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
LONG = 240
"""Tokens of an answer that a client asks for and does not read."""


def test_no_stream_of_two_hundred_is_lost(door: Door) -> None:
    process = psutil.Process(door.daemon.process.pid)
    before = process.memory_info().rss
    streams = [Stream(door.url, number) for number in range(200)]
    run_all(streams)
    assert [stream.tokens() for stream in streams] == [TOKENS] * 200
    assert process.memory_info().rss - before < 64 * 2**20


def test_keys_share_and_who_does_not_read_harms_nobody(door: Door) -> None:
    url = door.url
    keys = [
        door.daemon.json("gateway", "key", "create", name)["key"] for name in ("greedy", "modest")
    ]
    greedy, modest = (f"Authorization: Bearer {key}\r\n" for key in keys)
    try:
        idle = [Stream(url, number, greedy, LONG).connect() for number in range(40)]
        crowd = [Stream(url, number, greedy) for number in range(100)]
        for stream in crowd:
            stream.start()
        time.sleep(0.5)  # they are in line before the others come, or else nothing is shown
        few = [Stream(url, number, modest) for number in range(8)]
        run_all(few)
        for stream in crowd:
            stream.join()
        assert [stream.tokens() for stream in (*few, *crowd)] == [TOKENS] * 108
        late = sorted(stream.ended for stream in crowd)
        # Eight of a key that has few waiting are done long before a hundred of one that has many.
        assert max(stream.ended for stream in few) < late[50]
        for connection in idle:
            connection.close()
    finally:
        for name in ("greedy", "modest"):
            door.daemon("gateway", "key", "revoke", name)


def test_a_client_that_takes_nothing_is_cut_off(door: Door) -> None:
    stream = Stream(door.url, 0, tokens=480)
    stream.body = json.dumps({**json.loads(stream.body), "n": 16})
    with stream.connect(room=4096) as connection:
        mine = connection.getsockname()[1]

        def held() -> bool:
            found = psutil.Process(door.daemon.process.pid).net_connections("tcp")
            return any(one.raddr and one.raddr.port == mine for one in found)

        wait_until(held)
        wait_until(lambda: not held(), limit_s=200)
        wait_until(lambda: door.server.json("ps")["models"][0]["running"] == 0)
