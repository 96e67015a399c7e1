"""What the worker drives: one small interface, one file per kind of model behind it."""

from typing import Protocol

from models.pipe import Choose, Done, Failed, Part, Step, Submit

Reply = Part | Step | Done | Failed


def line_of(error: Exception) -> str:
    """An unexpected error in one line, as a frame carries it."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


class Backend(Protocol):
    """A loaded model and its jobs. `now` is in seconds, of a clock that only grows."""

    context: int
    """The most tokens of prompt and answer together; 0 where there are no tokens."""
    slots: int
    """How many jobs run at once in a batch."""
    dtype: str
    """The numbers it computes with."""
    fingerprint: str
    """What computes: backend and its version."""

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""

    def choose(self, frame: Choose) -> list[Reply]:
        """Go on with a job that waits for a choice; what there is to say at once.

        Raises Invalid BAD_REQUEST.
        """

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""

    def step(self, now: float) -> list[Reply]:
        """Advance the jobs a little; what there is to say of them."""

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
