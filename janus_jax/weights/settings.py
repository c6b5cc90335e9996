"""Settings files beside weights, read strictly: a field is taken with its type and its range, and
what nobody took is known to be harmless, or refused by name."""

import difflib
import fnmatch
import os
import pathlib

from janus_jax.common import float32
from janus_jax.common.files import read_json

# What transformers' configs of any model hold besides, and others write into them: how their code
# loads, saves, samples, trains or counts, which this program does its own way.
BOILERPLATE = (
    "_*", "architectures", "auto_map", "transformers_version", "unsloth_*", "dtype", "torch_dtype",
    "use_cache", "use_bfloat16", "use_mup", "use_flash*", "attn_implementation", "model_max_length",
    "output_*", "return_*", "gradient_checkpointing*", "bos_token_id", "eos_token_id", "pad_token_id",
    "sep_token_id", "decoder_start_token_id", "forced_*_token_id", "id2label", "label2id", "num_labels",
    "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix",
    "chunk_size_feed_forward", "initializer_range", "initializer_factor", "max_position_embeddings",
    "*dropout", "*dropout_rate", "*_pdrop", "pretraining_tp", "is_decoder", "is_llama_config",
    "tie_word_embeddings", "vision_*_token_id",
    "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
    "encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "num_beams", "num_beam_groups",
    "num_return_sequences", "diversity_penalty", "do_sample", "early_stopping", "max_length",
    "min_length", "bad_words_ids", "begin_suppress_tokens", "suppress_tokens", "exponential_decay_*",
    "remove_invalid_values", "ignore_index", "name_or_path", "base_model_name_or_path",
    "keys_to_ignore_at_inference", "base_model_*_plan", "neftune_noise_alpha",
)  # fmt: skip


MOST = 2**20  # beyond any size of a model; the table of a larger one would fill the memory
MOST_LAYERS = 1000
MOST_TIMES = 100  # of a level's channels


def brief(value) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def too_large(sizes: dict, where: str) -> list[str]:
    """The sizes in a section of our own config that no model has; where: leads their names."""
    most = {"layers": MOST_LAYERS, "res_blocks": MOST_LAYERS, "multipliers": MOST_TIMES}
    return [
        f"{where}{name} is {brief(value)}: must be at most {most.get(name, MOST):,}"
        for name, value in sizes.items()
        for x in (value if isinstance(value, list | tuple) else [value])
        if isinstance(x, int) and x > most.get(name, MOST)
    ]


def require_file(path: pathlib.Path):
    """Raises ValueError where a folder, a pipe, a device, or a link to nothing, has the place of a
    file."""
    if path.is_file():
        return
    if path.exists():
        kind = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise ValueError(f"{path}: {kind} has the place of this file; put the file there")
    if path.is_symlink():
        raise ValueError(
            f"{path}: a link to {os.readlink(path)}, which is not there; copy the file itself, or "
            "download it again"
        )


def read(directory, name: str) -> dict | None:
    """A settings file's values, None where there is no such file. Raises ValueError naming it."""
    path = pathlib.Path(directory) / name
    if not os.path.lexists(path):
        return None
    require_file(path)
    return read_json(path)


class Section:
    """A section of a settings file whose fields are taken one by one.

    values: of the section; None is an empty one.
    where: leads the names of its fields in what is said, with its dot.
    problems: hears what is wrong; a field of a wrong type or range gives its default then.
    """

    def __init__(self, values, where: str, problems: list[str]):
        self.where = where
        self.problems = problems
        self.taken = set()
        if not isinstance(values, dict | None):
            problems.append(f"{where[:-1]} is {brief(values)}: must be a section with fields")
            values = None
        self.values = values or {}

    def get(self, name: str, default=None):
        """Any value; null is as good as none."""
        self.taken.add(name)
        value = self.values.get(name)
        return default if value is None else value

    def section(self, name: str) -> "Section":
        return Section(self.get(name), f"{self.where}{name}.", self.problems)

    def refuse(self, name: str, value, due: str):
        self.problems.append(f"{self.where}{name} is {brief(value)}: must be {due}")

    def _checked(self, name: str, default, fits, due: str):
        value = self.get(name, default)
        if value is None or fits(value):
            return value
        self.refuse(name, value, due)
        return default

    def whole(self, name: str, default: int | None, low: int = 1, high: int = MOST) -> int | None:
        due = f"a whole number from {low} to {high:,}"
        return self._checked(name, default, lambda x: _whole(x) and low <= x <= high, due)

    def count(self, name: str, default: int) -> int:
        """Of layers or blocks."""
        return self.whole(name, default, high=MOST_LAYERS)

    def wholes(self, name: str, default: tuple) -> tuple:
        fits = lambda x: _whole(x) and 1 <= x <= MOST_TIMES
        several = lambda x: isinstance(x, list | tuple) and 0 < len(x) <= 20 and all(map(fits, x))
        due = f"whole numbers, at most 20, each from 1 to {MOST_TIMES}"
        return tuple(self._checked(name, default, several, due))

    def ratio(self, name: str, default: float) -> float:
        """A size as a multiple of another."""
        fits = lambda x: _number(x) and 0 < x <= 1000
        return self._checked(name, default, fits, "a number above 0, at most 1,000")

    def number(self, name: str, default: float | None, above: bool = False) -> float | None:
        """above: 0 itself is refused."""
        fits = lambda x: _number(x) and (x > 0 if above else x >= 0)
        due = "above 0" if above else "0 or more"
        value = self._checked(name, default, fits, f"a finite number in float32, {due}")
        return value if value is None else float(value)

    def flag(self, name: str, default: bool) -> bool:
        return self._checked(name, default, lambda x: isinstance(x, bool), "true or false")

    def colour(self, name: str, default: tuple, fits=lambda x: True, due: str = "") -> tuple:
        """Three numbers, one a channel; a single number stands for all three."""
        value = self.get(name, default)
        three = (value,) * 3 if _number(value) else value
        if not isinstance(three, list | tuple) or len(three) != 3 or not all(map(_number, three)):
            self.refuse(name, value, "3 numbers that float32 holds, or one for all channels")
            return default
        if not all(map(fits, three)):
            self.refuse(name, value, due)
            return default
        return tuple(map(float, three))

    def only(self, name: str, *known, why: str = "this model"):
        """Of a field in which there is no choice. None among `known` is the field left out."""
        value = self.get(name)
        same = lambda x: x == value and isinstance(x, bool) == isinstance(value, bool)
        if value is not None and not any(map(same, known)):
            can = " or ".join(brief(x) for x in known)
            self.problems.append(f"{self.where}{name} is {brief(value)}; {why} can only be {can}")

    def rest(self, *harmless: str):
        """Refuses what nobody took, but for names of these patterns and values that say no."""
        known = (*harmless, *BOILERPLATE)
        for name, value in sorted(self.values.items()):
            if name in self.taken or value in (None, False, "", [], {}):
                continue
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in known):
                close = difflib.get_close_matches(name, sorted(self.taken), 1, 0.8)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                self.problems.append(
                    f"{self.where}{name} is {brief(value)}: a field that is not honoured here{meant}; "
                    "take it out if the model is the same without it"
                )


def _whole(x) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _number(x) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and float32.finite(x)
