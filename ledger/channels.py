"""Payment channels: a payer locks rao, and a payee claims them by the payer's vouchers.

A voucher says how much has been paid in all, so only the highest counts, and one that is shown
twice pays nothing more (CONSENSUS 9).
"""

from dataclasses import dataclass, replace

from ledger.accounts import pay, take
from ledger.call import Call
from ledger.codec import hash_of, pack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, verify
from ledger.payloads import ClaimChannel, CloseChannel, OpenChannel, TopUpChannel
from ledger.state import State
from ledger.tables import CHANNELS, Channel
from ledger.types import ChainField, ChainId, Hash, HashField, PublicKey


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


def promise(chain: ChainId, channel: Hash, cumulative: int, payer: KeyPair) -> ClaimChannel:
    """A voucher as the payee gets it: the claim that it can make, signed by the payer."""
    signature = payer.sign(Voucher(chain, channel, cumulative).digest)
    return ClaimChannel(channel, cumulative, signature)


def check_promise(chain: ChainId, payer: PublicKey, claim: ClaimChannel) -> None:
    """Whether a payer signed the voucher of a claim. Raises Invalid BAD_SIGNATURE."""
    voucher = Voucher(chain, claim.channel, claim.cumulative)
    verify(payer, voucher.digest, claim.signature)


def channels_of(state: State, key: PublicKey) -> list[tuple[Hash, Channel]]:
    """The channels that a key pays into or is paid from; all channels are read for it."""
    return [
        (Hash(name), channel)
        for name, channel in state.rows(CHANNELS)
        if key in (channel.payer, channel.payee)
    ]


def open_channel(call: Call, payload: OpenChannel) -> None:
    """Lock rao for a payee. Raises Invalid: BAD_EXPIRY, SAME_KEY, NO_AMOUNT, NO_BALANCE."""
    if payload.expiry <= call.height:
        raise Invalid(Reason.BAD_EXPIRY)
    if payload.payee == call.sender:
        raise Invalid(Reason.SAME_KEY)
    take(call.state, call.sender, payload.amount)
    channel = Channel(call.sender, payload.payee, payload.amount, 0, payload.expiry)
    call.state.put(CHANNELS, call.id, channel)


def top_up_channel(call: Call, payload: TopUpChannel) -> None:
    """Lock more rao, or have a channel end later, which is not to end sooner.

    Raises Invalid: NO_CHANNEL, NOT_OWNER, BAD_EXPIRY, NO_AMOUNT where neither changes, NO_BALANCE.
    """
    channel = _channel(call, payload.channel)
    if call.sender != channel.payer:
        raise Invalid(Reason.NOT_OWNER)
    if payload.expiry < channel.expiry or payload.expiry <= call.height:
        raise Invalid(Reason.BAD_EXPIRY)
    if payload.amount or payload.expiry == channel.expiry:
        take(call.state, call.sender, payload.amount)
    amount = channel.amount + payload.amount
    longer = replace(channel, amount=amount, expiry=payload.expiry)
    call.state.put(CHANNELS, payload.channel, longer)


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
    check_promise(call.place.chain, channel.payer, payload)
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
