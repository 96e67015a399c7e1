"""The library's host, made with what is sound of it: Noise, our TCP, and hardly any of its limits.

Its resource manager counts connections; its rate limits, breakers and connector are off.
"""

from typing import Any

from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.rcmgr import ResourceLimits, ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from ledger.keys import KeyPair
from p2p.net.addresses import dialable
from p2p.net.tcp import TCP

MAX_PER_PEER = 8
"""Connections of one peer at once: simultaneous dials, and stale ones after it restarted."""
ADDRESS_TTL_S = 86_400


def stock_host(
    pair: KeyPair, announce: list[Multiaddr], connections_max: int, inbound_max: int
) -> Any:
    """A host that does nothing yet; at most `inbound_max` of its connections come from others."""
    keys = create_new_key_pair(pair.seed)
    noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
    limits = ConnectionLimits(
        max_established_inbound=inbound_max,
        max_established_outbound=connections_max,
        max_established_per_peer=MAX_PER_PEER,
        max_established_total=connections_max,
    )
    return new_host(
        key_pair=keys,
        transports=[TCP(max_accepted=inbound_max)],
        sec_opt={NOISE: noise},
        connection_config=ConnectionConfig(
            max_connections=connections_max,
            high_watermark=connections_max,
            low_watermark=0,
            min_connections=0,
            max_connections_per_peer=MAX_PER_PEER,
            auto_connect_interval=ADDRESS_TTL_S,
        ),
        resource_manager=ResourceManager(
            limits=ResourceLimits(max_connections=2 * connections_max),
            connection_limits=limits,
            enable_metrics=False,
            enable_memory_limits=False,
            enable_circuit_breaker=False,
            enable_graceful_degradation=False,
            enable_rate_limiting=False,
        ),
        addrs_factory=lambda listening: announce or dialable(listening),
        disable_identify_address_discovery=True,  # what one peer says of our address is a rumour
    )


class NoAutoConnector(AutoConnector):
    """In the library's place: it would dial whoever was ever heard of."""

    async def maybe_connect(self) -> None:
        """Dial nobody."""
