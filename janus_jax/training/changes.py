"""What has changed between two starts of one run, told to people and asked of them."""

import dataclasses
import pathlib
import sys

from janus_jax.checkpoint.history import digest

FLAG = "--accept_changes"


@dataclasses.dataclass
class Changes:
    """Lines "field: old -> new", sorted.

    Args:
        free: need no word.
        asked: the run goes on where the user says so.
        refused: would be another run, and why what could go on cannot.
        notes: what follows of the changes.
        reopened: stages that were done and go on -> the step from which.
        stage: at which the run goes on; empty where all are done.
        step: of that stage.
        data: stage -> digest of the data that it goes on with, where that is not its checkpoint's.
        history: of the work directory.
        moved_tokenizer: whether another directory holds the tokenizer that checkpoints know.
    """

    free: list[str] = dataclasses.field(default_factory=list)
    asked: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    reopened: dict[str, int] = dataclasses.field(default_factory=dict)
    stage: str = ""
    step: int = 0
    data: dict[str, str] = dataclasses.field(default_factory=dict)
    history: list[dict] = dataclasses.field(default_factory=list)
    moved_tokenizer: bool = False

    @property
    def needs_word(self) -> bool:
        """Whether the run goes on, but only where the user says so."""
        return bool(self.asked) and not self.refused

    def lines(self) -> list[str]:
        """What the run goes on with, for people."""
        return [*self.free, *self.asked, *self.notes]

    def add_data(self, stage: str, now: dict, different: list[str]):
        """The data of a stage is not its checkpoint's.

        Args:
            stage: its name.
            now: the data's fingerprint.
            different: lines of what differs, as fingerprints have it.
        """
        here = (entry for entry in self.history if entry["step"] == self.step)
        # What was said yes to at an earlier step is over: a checkpoint was trained on it since.
        known = {name: x for entry in here for name, x in entry["data"].items()}
        if not different or known.get(stage) == digest(now):
            return
        self.data[stage] = digest(now)
        # What the config says is told as it says it; what the files hold it does not say.
        held = [line for line in different if ".content: " in line or ".records: " in line]
        told = held if self.asked else different
        self.asked += [f"stages.{stage}, its data: {line}" for line in told]

    def problems(self, workdir: pathlib.Path) -> list[str]:
        """Why the run cannot go on, whatever the user says."""
        if not self.refused:
            return []
        text = f"{workdir} holds a run of another config; use another --workdir, or undo:"
        text += "".join(f"\n  {line}" for line in self.refused)
        if self.asked:
            text += f"\nWith these alone it would go on by {FLAG}:"
            text += "".join(f"\n  {line}" for line in self.asked)
        return [text]

    def unaccepted(self, workdir: pathlib.Path) -> str:
        """Why it cannot go on unless the user says so."""
        lines = "".join(f"\n  {line}" for line in [*self.asked, *self.notes])
        return (
            f"{workdir} holds this run under another config or other data. {FLAG} goes on from its "
            f"last checkpoint, with moments and place in the data; or undo:{lines}"
        )

    def agreed(self) -> bool:
        """Whether a person at the terminal says yes."""
        print("Since the last start of this run has changed:")
        print("".join(f"  {line}\n" for line in self.lines()), end="")
        while True:
            print("Go on with moments and place in the data? [yes/no] ", end="", flush=True)
            answer = sys.stdin.readline()
            if not answer or answer.strip().lower() in ("no", "n"):
                return False
            if answer.strip().lower() in ("yes", "y"):
                return True
