"""The refusals of the core: one list of reasons, one exception that carries a reason."""

from enum import StrEnum


class Reason(StrEnum):
    """Why an input was refused. Tests assert the reason, never the wording of a message."""

    # --- bytes
    TOO_LARGE = "the encoding is larger than its limit"
    NOT_CANONICAL = "the bytes are not the one canonical encoding of their value"
    WRONG_TYPE = "a field has the wrong type, length or range"
    # --- keys and signatures
    BAD_KEY = "the bytes are not a usable Ed25519 key"
    BAD_PEER_ID = "the text is not an Ed25519 peer id"
    BAD_SIGNATURE = "the signature does not match its key and content"
    # --- wallets
    BAD_ADDRESS = "the text is not an address"
    BAD_MNEMONIC = "the words are not those of a wallet"
    BAD_WALLET = "the wallet file is damaged"
    WRONG_PASSWORD = "the password is not that of the wallet"
    # --- meaning
    WRONG_CHAIN = "the record belongs to another network"
    NOT_MEMBER = "the node is not let into this swarm"
    # --- blocks and the ledger's disk
    WRONG_ROOT = "a root in the header is not that of what it stands for"
    WRONG_BLOCK = "the block does not follow the head"
    NOT_LEADER = "it was not the proposer's turn"
    BAD_CERTIFICATE = "the certificate does not show a quorum"
    BAD_RANDOMNESS = "the randomness is not the proposer's"
    UNBALANCED = "what is owned is not what was issued"
    BAD_GENESIS = "the genesis is not usable"
    BAD_PROOF = "the proof does not show that under its root"
    NO_LEDGER = "there is no ledger"
    LEDGER_EXISTS = "there is a ledger already"
    LEDGER_LOCKED = "the ledger is in use by another process"
    DISK_FULL = "the disk has no room for the ledger"
    CORRUPT = "the ledger's data is damaged"
    # --- any transaction
    KNOWN = "the transaction is known already"
    MEMPOOL_FULL = "too many transactions wait already"
    EXPIRED = "the transaction is not valid at this height"
    LOW_FEE = "the fee is lower than the size asks"
    WRONG_NONCE = "the transaction is not the sender's next"
    NO_AMOUNT = "an amount of at least 1 rao is due"
    NO_BALANCE = "the balance is too low"
    SAME_KEY = "two different keys are due"
    NOT_OWNER = "the sender does not own it"
    TOO_SOON = "it was done too short a time ago"
    TOO_DEAR = "it costs more than the sender would pay"
    # --- hotkeys and stake
    NO_HOTKEY = "the hotkey is bound to no wallet"
    BOUND = "the hotkey is bound already"
    BAD_TAKE = "the take is higher than is allowed"
    NO_STAKE = "less is staked than that"
    LITTLE_STAKE = "less than the least stake would be there"
    EMPTY_POOL = "all that was staked on the hotkey is lost"
    LIABLE = "the stake still answers for the hotkey it came from"
    JAILED = "the hotkey is jailed"
    NO_OFFENCE = "the statements show no offence"
    OLD_OFFENCE = "the offence is too old, or punished already"
    # --- subnets and neurons
    NO_SUBNET = "there is no such subnet"
    NO_SLOT = "every subnet is still immune"
    NO_SETTING = "a subnet has no such setting"
    BAD_SETTING = "the setting does not allow that value"
    FROZEN = "settings do not change right before an epoch"
    REGISTERED = "the hotkey has a neuron there"
    NOT_REGISTERED = "the hotkey has no neuron there"
    # --- weights
    BAD_WEIGHTS = "the uids and values are not a vector over the subnet's neurons"
    FEW_WEIGHTS = "the vector has fewer entries than the subnet asks"
    NO_PERMIT = "the neuron is no validator"
    OLD_VERSION = "the weights are of an older version than the subnet asks"
    COMMIT_FIRST = "the subnet asks for a commitment first"
    NO_COMMITS = "the subnet takes no commitments"
    NO_COMMIT = "no commitment of the sender can be revealed now"
    WRONG_REVEAL = "the vector is not the one that was committed"
    # --- channels
    NO_CHANNEL = "there is no such channel"
    BAD_EXPIRY = "the channel would have expired, or would expire sooner"
    OLD_VOUCHER = "the voucher pays nothing new"
    OVERDRAWN = "the voucher promises more than the channel holds"
    TOO_EARLY = "the channel cannot be closed by its payer yet"
    UNPAID = "the answer is not free"
    # --- models and receipts
    BAD_MODEL = "the model directory is not usable"
    NO_MEMORY = "the model does not fit in free memory"
    NO_ROOM = "the model does not fit on the disk"
    WRONG_CHUNK = "the bytes are not those that the model's manifest names"
    BAD_REQUEST = "the request does not fit the model"
    BUSY = "the model has as many requests waiting as it takes"
    NO_MODEL = "the model is not served here"
    MODEL_FAILED = "the model failed while answering"
    BAD_ANSWER = "the answer is not one to its question"
    WRONG_REQUEST = "the receipt does not match its request"
    WRONG_OUTPUT = "the receipt does not match its output"
    # --- tasks
    BAD_TASK = "the task cannot be asked"
    BAD_AVERAGES = "what was remembered of miners is damaged"
    # --- epochs
    BAD_EPOCH = "the epoch's input is not usable"


class Invalid(Exception):  # noqa: N818 - the domain's word: input is invalid, for a reason
    """Illegal input. Whoever raises it has changed nothing.

    `detail` says in plain words what was wrong, for people; code looks at `reason` only.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
