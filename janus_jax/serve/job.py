"""What the engine gives and refuses, for those that wait for it: no more than this of the engine is
known to the server's routes.
"""

import concurrent.futures
import dataclasses

import numpy as np


class Full(RuntimeError):
    """As many requests wait as may; ask again later."""


class Closed(RuntimeError):
    """The engine takes no more requests."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """ids: int32 [N]. prompt_tokens: of the prompt, picture_tokens of them of its pictures;
    seed, cfg_scale, temperature: as it was drawn."""

    ids: np.ndarray
    prompt_tokens: int
    seed: int
    cfg_scale: float
    temperature: float
    picture_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Answered:
    """finish_reason: "stop" at the end of sentence, a role or a stop string, "length" at the most tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class Job(concurrent.futures.Future):
    """One drawing or answer. `result()` gives `Drawn` or `Answered`, or raises what went wrong;
    `cancel()` ends it also while it runs: its rows are free at the next chunk, and `result()` raises
    CancelledError."""

    request = None  # what the rows run
    take = None  # take(new ids) -> whether the rest is not wanted
    outcome = None  # outcome() -> the result, once all ids are there
    unwanted = False

    def cancel(self) -> bool:
        """Whether it may still be stopped."""
        self.unwanted = True
        return super().cancel() or self.running()
