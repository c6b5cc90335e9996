"""The image head against transformers'."""

import numpy as np
import torch
from support.outputs import run, same


def test_image_head(theirs, ours):
    hidden = np.random.default_rng(8).standard_normal((2, 5, 64)).astype(np.float32)
    want = theirs.model.generation_head(torch.from_numpy(hidden))
    same(run(lambda m, x: m.image_head(x), ours, hidden), want)
