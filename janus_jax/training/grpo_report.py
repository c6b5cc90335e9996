"""What a person sees of a step of GRPO: its rewards, where its seconds went, how far the policy has
moved, whether it has collapsed, and a sheet of the best and worst drawings."""

import io
import pathlib
import time

import jax
import numpy as np

from janus_jax.common import files
from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.training.grpo_loss import KINDS, spread

SHEET = 6  # prompts of a sheet, the same every time
LASTS = 5  # steps in a row with a collapsed policy, before it is said, and said again


class Clock:
    """Seconds of a step by what they were spent on."""

    def __init__(self):
        self.seconds = {}
        self.since = time.perf_counter()

    def lap(self, name: str, wait=None):
        """Enters the time since the last lap. wait: an array that it ends with."""
        jax.block_until_ready(wait)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.since
        self.since = now


def metrics(of_loss: dict, groups: list, apart: np.ndarray, clock: Clock) -> dict:
    """Of a step; a kind that it has no group of is left out.

    of_loss: what its loss gives. groups: grpo_batch.Group, scored. apart: for each id how far its
        log-probability by the trainer lies from the decoder's. clock: of the step.
    """
    out = dict(of_loss)
    out["decoder_difference"] = float(apart.mean()) if apart.size else 0.0
    out["decoder_difference_most"] = float(apart.max(initial=0.0))
    for draws, kind in zip((True, False), KINDS):
        own = [group for group in groups if group.draws == draws and not group.failed]
        if not own:
            out = {name: value for name, value in out.items() if not name.endswith(f"_{kind}")}
            continue
        rewards = np.stack([group.rewards for group in own])
        out[f"reward_{kind}"] = float(rewards.mean())
        out[f"useful_groups_{kind}"] = float(spread(rewards).mean())
        for name in own[0].by_name:
            found = np.mean([group.by_name[name] for group in own])
            out[f"reward_{kind}/{short(name)}"] = float(found)
        out[f"distinct_{kind}"] = float(np.mean([distinct(group) for group in own]))
    out |= {f"seconds_{name}": value for name, value in clock.seconds.items()}
    return out


def short(name: str) -> str:
    """A reward's name as a metric's: without the slashes of an address."""
    return name.split("//")[-1].replace("/", ".")


def distinct(group) -> float:
    """The share of a group's outputs that differ from all before them."""
    return len({ids.tobytes() for ids, _ in group.outputs}) / len(group.outputs)


def line(stage: str, step: int, values: dict) -> str:
    """A step in a line."""
    parts = []
    for kind in KINDS:
        if f"reward_{kind}" not in values:
            continue
        named = [n for n in values if n.startswith(f"reward_{kind}/")]
        own = ", ".join(f"{n.partition('/')[2]} {float(values[n]):.3f}" for n in named)
        of = {n: float(values[f"{n}_{kind}"]) for n in ("entropy", "kl", "clipped")}
        parts.append(
            f"{kind}: reward {values[f'reward_{kind}']:.3f} ({own}), entropy {of['entropy']:.3f}, "
            f"KL {of['kl']:.4f}, clipped {of['clipped']:.3f}"
        )
    if failed := values["groups_failed"]:
        parts.append(f"{failed:.0f} groups left out, their reward failed")
    parts.append(
        f"decoder differs by {values['decoder_difference']:.1e} (most "
        f"{values['decoder_difference_most']:.1e})"
    )
    spent = [n for n in values if n.startswith("seconds_")]
    parts.append(", ".join(f"{n.removeprefix('seconds_')} {values[n]:.2f} s" for n in spent))
    return f"{stage}, step {step}: " + "; ".join(parts)


class Collapse:
    """Says where a policy has collapsed: each prompt has one output, or the entropy is below a floor,
    nats an id, for LASTS steps in a row."""

    def __init__(self, stage: str, floor: float, say):
        self.stage = stage
        self.floor = floor
        self.say = say
        self.steps = dict.fromkeys(KINDS, 0)

    def watch(self, step: int, groups: list, values: dict):
        for kind in KINDS:
            if f"distinct_{kind}" not in values:
                continue
            entropy = float(values[f"entropy_{kind}"])
            own = [group for group in groups if group.draws == (kind == KINDS[0])]
            same = all(len({ids.tobytes() for ids, _ in group.outputs}) == 1 for group in own)
            # Few words may be certain and right; pictures never are.
            collapsed = kind == KINDS[0] and (entropy < self.floor or same)
            self.steps[kind] = self.steps[kind] + 1 if collapsed else 0
            if self.steps[kind] and self.steps[kind] % LASTS == 0:
                self.say(
                    f"WARNING: {self.stage}, step {step}: THE POLICY HAS COLLAPSED: for {LASTS} steps its "
                    f"{kind} had an entropy of {entropy:.2g} nats an id (entropy_floor {self.floor:g})"
                    f"{', and one output a prompt' if same else ''}: nothing more is learned. Go back to "
                    "an earlier checkpoint, with a lower learning rate, a larger kl, or clip_high 0.28"
                )


def sheet(workdir: pathlib.Path, stage: str, number: int, groups: list, pictures: list, say):
    """Writes WORKDIR/sheets/STAGE-rewards/STEP.png: of each prompt its best and its worst drawing."""
    shown = []
    told = []
    at = 0
    for group in groups:
        own = pictures[at : at + len(group.outputs)]
        at += len(own)
        if group.failed:
            continue
        for word, k in (("best", group.rewards.argmax()), ("worst", group.rewards.argmin())):
            shown.append(own[k])
            told.append(f"{group.asked.words}: {word}, {group.rewards[k]:.2f}")
    if not shown:
        return
    path = workdir / "sheets" / f"{stage}-rewards" / f"{number:08}.png"
    drawn = io.BytesIO()
    contact_sheet(shown, told, 6, max(1.0, 96 / shown[0].width)).save(drawn, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, drawn.getvalue())
    except OSError as error:  # a full disk does not stop training
        say(f"ERROR: {path} cannot be written ({error.strerror})")
