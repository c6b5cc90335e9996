"""A sense for tests, after docs/new_modality.md: one electrode's voltages over time, as of an EEG."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sizes:
    """So many `samples` become a token for each `window` of them."""

    samples: int = 64
    window: int = 8
    width: int = 16

    dtype = np.float32
    suffixes = (".npy",)

    @property
    def tokens(self) -> int:
        return self.samples // self.window

    @property
    def shape(self) -> tuple[int]:
        return (self.samples,)

    def problems(self) -> list[tuple[str, str]]:
        return [("window", "must divide samples")] if self.samples % self.window else []

    def flops(self) -> float:
        return 2.0 * self.samples * self.width

    def array(self, file) -> np.ndarray:
        found = np.load(file) if isinstance(file, str) else np.asarray(file, np.float32)
        if found.shape != self.shape:
            raise ValueError(f"has the shape {list(found.shape)}, needs {list(self.shape)}")
        return found.astype(np.float32)
