"""The network: host, transport, streams, connections, discovery, topology.

What py-libp2p 0.8.1 does when it is used as it comes, by the numbers that code and tests refer to,
and what closes each:

T1   plaintext is offered, so anyone can be anyone            host.py: Noise only
T2   an exception in a stream handler ends the host           host.py: one guarded door
T3   a malformed message or a validator that raises, too      gossip/pubsub.py: push_msg
T4   gossip over 64 KB to a late joiner corrupts its stream   yamux_stream.py: whole writes
T5   a writer without window for 5 s is reset                 yamux_stream.py: a minute, by events
T6   windows grow to 16 MB a stream                           yamux.py: 1 MB, a budget a connection
T7   another muxer cannot be configured                       yamux.py: install
T8   an exact read gives up after a hundred short ones        streams.py: Frames
T9   dead and frozen peers are not noticed                    tcp_stream.py, yamux_ping.py
T10  a task stays for each inbound connection, 250 at most    tcp.py: ends with its socket
T11  dialling waits, tries one address, refuses for a minute  host.py: dial; keeper.py
T12  async validators deliver twice                           gossip/pubsub.py: handlers never wait
T13  a quick restart repeats message ids                      gossip/pubsub.py: counter
T14  two daemons share a port                                 tcp.py, host.py: no SO_REUSEPORT
T15  heartbeats of 120 s, 10 messages a second                gossip/pubsub.py: Router
T16  32 messages of a burst arrive                            gossip/pubsub.py: queues, publish
T17  publish says nothing of what is refused                  same path in for ours and others'
T18  logging is set up behind one's back                      p2p/node/logs.py
T19  metrics nobody reads stop pubsub                         never switched on
T20  work in the network's thread stalls it                   models/worker.py: a process
T21  a read gives what is there                               streams.py: Frames
T22  it pins and patches its environment                      pyproject.toml: exact version
"""
