"""A reward that another program computes, over HTTP.

A batch of outputs is one POST of JSON: {"prompts": [{"words", "answer"}], "pictures": [PNG in base64]}
or {"prompts", "answers": [text]}; the reply is {"rewards": [number, one each]}. A batch that fails,
comes late or is no such reply is asked for again; if that fails too, its outputs have no reward, which
is not 0: nothing is learned of their groups.
"""

import base64
import http.client
import io
import json
import time
import urllib.error
import urllib.request

import numpy as np
from PIL import Image

from janus_jax.training.rewards import RewardError

BATCH = 64  # outputs a request
PAUSE = 0.5  # seconds before the first repetition; twice as many before each further one


class HttpReward:
    """url: of the program; timeout: seconds that a request may take; retries: repetitions of one."""

    def __init__(self, url: str, timeout: float, retries: int, say=print):
        self.url = url
        self.timeout = timeout
        self.retries = retries
        self.say = say

    def __call__(self, prompts: list, outputs: list) -> np.ndarray:
        """float32 [n], NaN for those of batches that failed. Raises RewardError for a reply of
        another length."""
        found = []
        for at in range(0, len(outputs), BATCH):
            some = outputs[at : at + BATCH]
            given = self._batch(prompts[at : at + BATCH], some)
            found.append(np.full(len(some), np.nan) if given is None else given)
        return np.concatenate(found).astype(np.float32) if found else np.zeros(0, np.float32)

    def _batch(self, prompts: list, outputs: list):
        name, made = ("pictures", _png) if isinstance(outputs[0], Image.Image) else ("answers", str)
        sent = {
            "prompts": [{"words": p.words, "answer": p.answer} for p in prompts],
            name: [made(x) for x in outputs],
        }
        body = json.dumps(sent).encode()
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                asked = urllib.request.Request(
                    self.url, body, {"Content-Type": "application/json"}, method="POST"
                )
                with urllib.request.urlopen(asked, timeout=self.timeout) as reply:
                    given = json.loads(reply.read())["rewards"]
                values = np.array([np.nan if x is None else float(x) for x in given])
                break
            except (
                OSError, ValueError, KeyError, TypeError, http.client.HTTPException,
            ) as error:  # fmt: skip
                why = f"{type(error).__name__}: {error}"
        else:
            self.say(
                f"WARNING: reward {self.url} gave nothing for {len(outputs)} outputs in "
                f"{self.retries + 1} requests of at most {self.timeout:g} s (the last: {why})"
            )
            return None
        if len(values) != len(outputs):
            raise RewardError(
                f"reward {self.url} gave {len(values)} numbers for {len(outputs)} outputs: it has to "
                "give one for each, in their order; mend that program"
            )
        return values


def _png(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
