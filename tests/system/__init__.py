"""The real thing: daemons as processes, on loopback and in network namespaces."""
