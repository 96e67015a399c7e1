// A js-libp2p node that meets a daemon; test_js.py runs it. One JSON object a line, out and in.
//
//   node peer.mjs TOPIC
//
// It says {"address": ...} first, {"message": ...} for each message on TOPIC, {"identified": ...}
// for each peer that told who it is, and {"done": ..., "result" or "error": ...} for each action.

import './polyfill.mjs'
import { createInterface } from 'node:readline'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const [topic] = process.argv.slice(2)
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping(), pubsub: gossipsub() }
})
const { pubsub } = node.services

const say = (value) => console.log(JSON.stringify(value))

node.addEventListener('peer:identify', ({ detail }) => {
  say({ identified: `${detail.peerId}`, agent: detail.agentVersion, protocols: detail.protocols })
})
pubsub.addEventListener('message', ({ detail }) => {
  const data = Buffer.from(detail.data).toString('base64')
  say({ message: { topic: detail.topic, from: `${detail.from}`, data } })
})
pubsub.subscribe(topic)

const actions = {
  dial: async ({ address }) => `${(await node.dial(multiaddr(address))).remotePeer}`,
  ping: async ({ address }) => await node.services.ping.ping(multiaddr(address)),
  publish: async ({ text }) => (await pubsub.publish(topic, Buffer.from(text))).recipients.length
}

say({ address: `${node.getMultiaddrs()[0]}` })
for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line)
  try {
    say({ done: told.do, result: await actions[told.do](told) })
  } catch (error) {
    say({ done: told.do, error: `${error}` })
  }
}
await node.stop()
process.exit(0)
