"""Payment channels: a payer locks rao, and a payee claims them by the payer's vouchers.

A voucher says how much has been paid in all, so only the highest counts, and one that is shown
twice pays nothing more (CONSENSUS 9).
"""

from dataclasses import dataclass, replace

from ledger.accounts import pay, take
from ledger.call import Call
from ledger.codec import hash_of, pack
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.payloads import ClaimChannel, CloseChannel, OpenChannel
from ledger.tables import CHANNELS, Channel
from ledger.types import ChainField, Hash, HashField


@dataclass(frozen=True)
class Voucher:
    """What a payer signs: this much in all, from this channel, on this chain."""

    chain: ChainField
    channel: HashField
    cumulative: int

    @property
    def digest(self) -> Hash:
        """What is signed."""
        return hash_of("poi/voucher", pack(self))


def open_channel(call: Call, payload: OpenChannel) -> None:
    """Lock rao for a payee. Raises Invalid: BAD_EXPIRY, SAME_KEY, NO_AMOUNT, NO_BALANCE."""
    if payload.expiry <= call.height:
        raise Invalid(Reason.BAD_EXPIRY)
    if payload.payee == call.sender:
        raise Invalid(Reason.SAME_KEY)
    take(call.state, call.sender, payload.amount)
    channel = Channel(call.sender, payload.payee, payload.amount, 0, payload.expiry)
    call.state.put(CHANNELS, call.id, channel)


def claim_channel(call: Call, payload: ClaimChannel) -> None:
    """Pay the payee what the voucher promises beyond what it has claimed.

    Raises Invalid: NO_CHANNEL, NOT_OWNER, OLD_VOUCHER, OVERDRAWN, BAD_SIGNATURE.
    """
    channel = _channel(call, payload.channel)
    if call.sender != channel.payee:
        raise Invalid(Reason.NOT_OWNER)
    if payload.cumulative <= channel.claimed:
        raise Invalid(Reason.OLD_VOUCHER, f"{channel.claimed} rao are claimed already")
    if payload.cumulative > channel.amount:
        raise Invalid(Reason.OVERDRAWN, f"the channel holds {channel.amount} rao")
    voucher = Voucher(call.place.chain, payload.channel, payload.cumulative)
    verify(channel.payer, voucher.digest, payload.signature)
    pay(call.state, channel.payee, payload.cumulative - channel.claimed)
    call.state.put(CHANNELS, payload.channel, replace(channel, claimed=payload.cumulative))


def close_channel(call: Call, payload: CloseChannel) -> None:
    """Give the payer what was not claimed; the payee has until `channel_grace` after expiry.

    Raises Invalid: NO_CHANNEL, NOT_OWNER, TOO_EARLY.
    """
    channel = _channel(call, payload.channel)
    if call.sender not in (channel.payer, channel.payee):
        raise Invalid(Reason.NOT_OWNER)
    if call.sender == channel.payer and call.height <= channel.expiry + call.params.channel_grace:
        raise Invalid(Reason.TOO_EARLY, f"after block {channel.expiry + call.params.channel_grace}")
    pay(call.state, channel.payer, channel.amount - channel.claimed)
    call.state.delete(CHANNELS, payload.channel)


def _channel(call: Call, channel_id: Hash) -> Channel:
    channel = call.state.get(CHANNELS, channel_id)
    if channel is None:
        raise Invalid(Reason.NO_CHANNEL)
    return channel
