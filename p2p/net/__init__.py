"""The network: host, transport, streams, connections, discovery, topology."""
