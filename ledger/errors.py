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
    # --- meaning
    WRONG_CHAIN = "the record belongs to another network"
    # --- models and receipts
    BAD_MODEL = "the model directory is not usable"
    NO_MEMORY = "the model does not fit in free memory"
    BAD_REQUEST = "the request does not fit the model"
    BUSY = "the model has as many requests waiting as it takes"
    NO_MODEL = "the model is not served here"
    MODEL_FAILED = "the model failed while answering"
    WRONG_REQUEST = "the receipt does not match its request"
    WRONG_OUTPUT = "the receipt does not match its output"


class Invalid(Exception):  # noqa: N818 - the domain's word: input is invalid, for a reason
    """Illegal input. Whoever raises it has changed nothing.

    `detail` says in plain words what was wrong, for people; code looks at `reason` only.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
