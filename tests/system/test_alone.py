"""A daemon whose bootstraps are down."""

import time

from .swarm import Swarm, free_port, wait_until

DEAD = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUj2kj6vnc6iDEp"
JOINS_S = 10.0


def test_alone_until_a_bootstrap_comes_up(swarm: Swarm) -> None:
    """Given a daemon each of whose bootstraps is down: a closed port, a name that resolves to one,
    and a name that nobody has,
    then it is ready, and names each address and why it failed, in its status and its log;
    when the one behind the name comes up, it joins within 10 s and says so."""
    late = swarm.make(listen=[f"/ip4/127.0.0.1/tcp/{free_port()}"]).start().ready()
    late_id, port = late.peer_id, late.port
    late.kill()
    closed = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{DEAD}"
    named = f"/dns4/localhost/tcp/{port}/p2p/{late_id}"
    unknown = f"/dns4/no-such-name.invalid/tcp/4040/p2p/{DEAD}"
    daemon = swarm.start(bootstrap=[closed, named, unknown])

    def reasons() -> dict[str, str] | None:
        rows = daemon.status()["bootstrap"]
        found = {row["address"]: row["error"] for row in rows}
        return found if set(found) == {closed, named, unknown} and all(found.values()) else None

    found = wait_until(reasons, 40, "a reason for each address")
    assert daemon.status()["alone"]
    for address, reason in found.items():
        place = address.split("/p2p/")[0]
        assert place in reason
        assert place in daemon.err(), "its log names the address"
    assert "refused" in found[closed]
    assert "refused" in found[named]
    wait_until(lambda: "alone for now" in daemon.err(), 40, "it saying that it is alone")

    time.sleep(2)  # its waits have grown by now
    late.start().ready()
    began = time.monotonic()
    wait_until(lambda: late_id in daemon.peers(), JOINS_S, "joining")
    print(f"joined {time.monotonic() - began:.1f} s after the bootstrap was ready")
    wait_until(lambda: f"bootstrap peer {late_id} is back" in daemon.err(), 40, "it saying so")
    wait_until(lambda: "no longer alone" in daemon.err(), 40, "it saying that it is not alone")
    states = {row["address"]: row["state"] for row in daemon.status()["bootstrap"]}
    assert states[named] == "connected"
    assert not daemon.status()["alone"]
