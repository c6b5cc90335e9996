"""What a config file may say: plain dataclasses, with what each field means. Read without JAX."""

import dataclasses

from janus_jax.config.evaluation import Checkpoints, Evaluation, accepted, another_run, free
from janus_jax.config.steps import seed_of
from janus_jax.model import config as model_config

KINDS = ("understanding", "text", "generation")
FORMS = ("chat", "plain")
FORMATS = (  # of a data set; data/catalog.py has a reader for each
    "json", "csv", "folder", "webdataset", "array_record", "parquet", "text", "text_files", "tfds", "hf",
)  # fmt: skip
ByPart = float | dict[str, float]
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)


class ConfigError(ValueError):
    """All that is wrong with a config, one line each."""

    exit_code = "usage"

    @classmethod
    def of(cls, problems: list[str]) -> "ConfigError":
        """All problems as one message; what two checks found alike is told once."""
        problems = list(dict.fromkeys(problems))
        lines = "\n".join(f"  - {p}" for p in problems)
        return cls(f"{len(problems)} problem(s) in the config:\n{lines}")


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Examples drawn of each kind (Table 1's data ratio)."""

    understanding: float
    text: float
    generation: float


@dataclasses.dataclass(frozen=True)
class Rows:
    """The shape of a step and how examples fill it: `count` rows of `length` tokens with at most
    `understanding_images` to understand and `generation_images` to generate in each."""

    count: int
    length: int
    understanding_images: int
    generation_images: int


@dataclasses.dataclass(frozen=True)
class Optim:
    """One column of the paper's Table 1. learning_rate, weight_decay: a number, or one for each part
    of what learns: by child, and `default` for the others. After a linear warm-up the `schedule` is `constant`, or
    falls to `end_factor` times the learning rate (the paper does not say where): as a `cosine`, or
    straight, `linear` from the warm-up on and `wsd` in the last `decay_steps`. warmup_steps,
    decay_steps: steps, or a share of the stage's below 1. mu_dtype: Adam's first moment is kept in
    it; bfloat16 saves 2 bytes a trained parameter. ema: decay of an average of what learns, exported
    beside it; 0: none."""

    learning_rate: ByPart
    schedule: str = "constant"
    warmup_steps: float = 0
    decay_steps: float = 0
    weight_decay: ByPart = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    end_factor: float = 0.0
    mu_dtype: str = another_run("float32")
    ema: float = another_run(0.0)


@dataclasses.dataclass(frozen=True)
class Spikes:
    """A task's loss is a spike when it lies more than `sigma` standard deviations above the mean of
    the `window` steps before it that drew from the same data; sigma 0: none is."""

    window: int = 128
    sigma: float = 6.0


@dataclasses.dataclass(frozen=True)
class Template:
    """Role names and the system text of understanding; generation has no system text. Janus-1.3B
    says User/Assistant, Janus-Pro <|User|>/<|Assistant|>."""

    user: str = "User"
    assistant: str = "Assistant"
    system: str = SYSTEM


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One line of a config's `data.datasets`.

    Args:
        kind: understanding, text or generation.
        path: a file, a glob, a range {0000..0575}, a folder, several of them with commas,
            `tfds:<name>/<config>:<version>@<split>` (`?<data_dir>` at its end),
            `hf:<owner>/<name>[/<config>]:<split>`, `shapes:` or `emoji:`.
        format: json, csv, folder, webdataset, array_record, tfds, parquet, hf, text (documents between
            blank lines) or text_files (each file a document); empty: told from the path.
        images: the folder that records name pictures in.
        weight: share of the examples of its kind.
        steps: (first, end) of the stage's steps in which it is drawn, empty for all.
        stages: those that draw it, empty for all.
        prompt: for understanding, alternative questions to ask about a caption; for generation,
            templates around it, such as "a photo of {caption}", with any field in braces.
        picture: the field that holds the pictures; here and in the next three "a.b" is b within a.
        caption: the field that holds it ("names": a class's synonyms; "messages": the first answer).
        question: the field that holds what is asked, beside `caption` or `answer`.
        answer: the field that holds what is answered.
        target: of edits, the field that holds the picture to draw, see data/edits.py.
        source_ids: of edits, the probability that pictures are given as VQ ids too.
        edit_dropout: of edits, the probabilities that words, pictures, and both are blanked.
        form: a `chat` with roles, or `plain` pictures and words; empty: by the stage's `supervise`.
        continues: a text longer than a row goes on in later rows; False: its end is left out.
        names: a JSON or TSV file of classes' names.
        image_ids: a directory that `python -m janus_jax.data tokenize` made.
        min_side: pictures with a shorter side, in pixels, are left out.
        score: the field that holds a record's score.
        min_score: records whose `score` is lower are left out.
        holdout: what is not trained on, for evaluations: a share below 1, so many records, or where
            they lie, such as "val.jsonl"; 0: none; empty: as `evaluation.holdout` says.
    """

    kind: str
    path: str
    format: str = ""
    images: str = ""
    weight: float = 1.0
    steps: tuple[int, ...] = ()
    stages: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    picture: str = ""
    caption: str = ""
    question: str = ""
    answer: str = ""
    target: str = ""
    source_ids: float = 0.5
    edit_dropout: tuple[float, ...] = (0.05, 0.05, 0.05)
    form: str = ""
    continues: bool = True
    names: str = ""
    image_ids: str = ""
    min_side: int = 0
    score: str = ""
    min_score: float = 0.0
    holdout: float | str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One column of Table 1 and of Figure 3, or the training of one part of the model.

    Args:
        trainable: the children of the model that learn (Figure 3's flames).
        init: weights directories. Each may hold some children, later ones win, `previous` is the
            stage before in this config, and what none holds starts at random.
        steps: optimiser steps, or text such as "3 epochs of mine", a data set that it draws.
        batch_size: examples a step, the paper's number. `rows` must hold about as many; given on
            the command line without rows.count, it takes the rows with it.
        ratio: how many of these examples are of each kind.
        optim: the optimiser's numbers.
        task: how the stage learns, the name of a file in training/tasks, such as `janus`.
        rows: the packed rows that hold a step's examples, where the task packs them.
        supervise: predict `all` text, or the `answers` of conversations only.
        options: numbers and words of the task's own, by name; its file lists them with their
            defaults.
        condition_dropout: probability that a prompt to draw is blanked, for guidance.
        first_sentence: probability that only the first sentence of a caption is the prompt.
        accumulate: microbatches that a step's rows are cut into, one after the other, for memory.
        checkpoint_every: steps between two checkpoints.
        log_every: steps between two records of the log.
        spikes: which losses are spikes.
    """

    trainable: tuple[str, ...]
    init: tuple[str, ...] = accepted()
    steps: int | str = accepted()
    batch_size: int = accepted()
    ratio: Ratio = accepted()
    optim: Optim = accepted()
    task: str = "janus"
    rows: Rows | None = accepted(None)
    supervise: str = accepted("all")
    options: dict[str, float | str] = dataclasses.field(default_factory=dict)
    condition_dropout: float = accepted(0.1)
    first_sentence: float = accepted(0.25)
    accumulate: int = free(1)
    checkpoint_every: int = free(1000)
    log_every: int = free(20)
    spikes: Spikes = free(Spikes())

    def form(self, line: Dataset) -> str:
        """How it writes a data set's records; the papers' first two stages have no roles."""
        return line.form or ("plain" if self.supervise == "all" else "chat")


@dataclasses.dataclass(frozen=True)
class Data:
    """Args:
    datasets: a line each, by name.
    workers: processes a host that read, decode and pack; 0: the training process itself does. The
        batches are the same.
    max_bad_fraction: of a data set's records, above which training stops.
    """

    datasets: dict[str, Dataset] = accepted()
    workers: int = free(0)
    max_bad_fraction: float = free(0.01)

    def drawn_by(self, stage: str) -> dict[str, Dataset]:
        """The lines that name a stage, or no stage at all; their weight may be 0."""
        return {name: d for name, d in self.datasets.items() if not d.stages or stage in d.stages}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis; one may be -1, the devices left."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config file, resolved.

    Args:
        model: the sizes of every box of Figure 2.
        template: role names and the system text.
        data: what is read.
        stages: by name, in the order in which they run.
        tokenizer: a directory with tokenizer.json; empty: a byte-level BPE is learned of the data.
        mesh: how the devices are laid out.
        evaluation: while training, and what is drawn and asked after the last stage.
        checkpoints: which of them are kept.
        seed: of all that is drawn at random.
        wandb: the Weights & Biases project to log to as well, or empty.
        profile: how many steps of each stage to trace, 0 for none.
        deterministic: whether GPUs add in one order too, so that a run repeats bit for bit.
    """

    model: model_config.JanusConfig
    template: Template = accepted()
    data: Data
    stages: dict[str, Stage]
    tokenizer: str = ""
    mesh: Mesh = free(Mesh())
    evaluation: Evaluation = free(Evaluation())
    checkpoints: Checkpoints = free(Checkpoints())
    seed: int = 0
    wandb: str = free("")
    profile: int = free(0)
    deterministic: bool = free(False)

    def previous(self, stage: str) -> str | None:
        """The stage before, or None for the first."""
        names = list(self.stages)
        at = names.index(stage)
        return names[at - 1] if at else None

    def seed_of(self, stage: str) -> int:
        """The seed of a stage's data, by its name: stages of several config files draw apart too."""
        return seed_of(self.seed, stage)

    def draws(self, stage: str) -> dict[str, Dataset]:
        """The data sets of which a stage reads records: those of a kind and a weight above 0."""
        shares = vars(self.stages[stage].ratio)
        lines = self.data.drawn_by(stage).items()
        return {name: d for name, d in lines if d.weight > 0 and shares.get(d.kind, 0) > 0}

    def uses_ids(self, stage: str) -> bool:
        """Do the images that a stage learns to draw come as ids? Then its step needs no VQ
        tokenizer."""
        lines = [d for d in self.draws(stage).values() if d.kind == "generation"]
        return bool(lines) and all(d.image_ids for d in lines)
