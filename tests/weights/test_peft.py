"""PEFT's adapters over transformers' Janus: written, read back, and computed by both."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from flax import nnx
from support import adapters, foreign, tiny
from support.foreign import convert, leaves_of

import janus_jax
from janus_jax.model import low_rank_layers
from janus_jax.training import state
from janus_jax.weights import __main__ as command
from janus_jax.weights import peft_export as ours
from janus_jax.weights.for_config import values_for_config
from janus_jax.weights.layouts import janus_hf
from janus_jax.weights.reader import flatten
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError


@pytest.fixture(scope="module")
def base(hf, tmp_path_factory):
    """A base in transformers' layout, with the small files that its processor reads."""
    directory = tmp_path_factory.mktemp("peft")
    convert(hf, directory / "own", "janus_jax")
    return convert(directory / "own", directory / "base", "transformers")


@pytest.fixture(scope="module")
def written(base):
    """(PEFT's directory, the tensors planted in the adapter that it was written from)."""
    tensors = adapters.planted(base)
    adapters.save(base.with_name("lora"), base, tensors, rslora=1)
    return convert(base.with_name("lora"), base.with_name("peft"), "peft"), tensors


def theirs(base, adapter=None):
    peft = pytest.importorskip("peft", reason="pip install peft")
    model = transformers.JanusForConditionalGeneration.from_pretrained(base)
    return peft.PeftModel.from_pretrained(model, adapter) if adapter else model


def logits(model) -> dict[str, np.ndarray]:
    """Of text around a picture to understand, and of drawn ids."""
    c = foreign.config()
    tower = c.understanding_encoder
    noise = torch.Generator().manual_seed(0)
    picture = torch.rand((1, 3, tower.image_size, tower.image_size), generator=noise) * 2 - 1
    text = torch.randint(0, 200, (1, 6), generator=noise)
    slots = torch.full((1, tower.tokens), foreign.tokenizer().placeholder)
    janus = janus_of(model)
    with torch.no_grad():
        seen = model(input_ids=torch.cat([text, slots, text], 1), pixel_values=picture).logits
        embedded = janus.prepare_embeddings_for_image_generation(text % 16)
        drawn = janus.model.generation_head(janus.model.language_model(inputs_embeds=embedded)[0])
    return {"text": seen.numpy(), "image": drawn.numpy()}


def close(found: dict, want: dict, atol: float = 1e-6):
    assert found.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=atol, err_msg=name)


def test_what_is_written_for_peft_is_read_back_as_the_same_weights(written):
    directory, _ = written
    want = leaves_of(open_source(directory.with_name("lora")))
    source = open_source(directory).require()
    found = leaves_of(source)
    for name, x in want.items():
        assert found[name].tobytes() == x.tobytes(), name
    words = lambda source: source.processor().tokenizer.backend.get_vocab()
    assert words(source) == words(open_source(directory.with_name("lora")))
    values = json.loads((directory / "adapter_config.json").read_text())
    assert values["modules_to_save"] == ["model.aligner.fc1", "model.aligner.hidden_layers.0"]


@pytest.mark.slow
def test_peft_computes_with_it_what_transformers_computes_with_the_merged_weights(base, written):
    directory, _ = written
    merged = convert(directory.with_name("lora"), directory.with_name("merged"), "transformers")
    model = theirs(base, directory)
    found = logits(model)
    close(found, logits(theirs(merged)), 2e-5)
    assert np.abs(found["text"] - logits(theirs(base))["text"]).max() > 0.05
    close(logits(model.merge_and_unload()), found, 2e-5)


def test_what_peft_saves_is_read_as_what_it_merges(base, tmp_path):
    peft = pytest.importorskip("peft", reason="pip install peft")
    layer = r"model\.language_model\.layers\.1\.(self_attn\.[qv]_proj|mlp\.down_proj)"
    asked = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=layer + r"|model\.vision_model\.encoder\.layers\.\d\.mlp\.fc1|lm_head",
        rank_pattern={"q_proj": 2}, alpha_pattern={r"mlp\.fc1": 9}, modules_to_save=["generation_aligner"],
        bias="lora_only", init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = peft.get_peft_model(theirs(base), asked)
    for x in model.parameters():
        if x.requires_grad:
            x.data += 0.1 * torch.randn_like(x)
    model.save_pretrained(tmp_path / "adapter")
    source = open_source(tmp_path / "adapter").require()
    assert source.facts.rank == 4 and len(source.pairs) == 6
    found = leaves_of(source)
    out = tmp_path / "merged"
    model.merge_and_unload().save_pretrained(out)
    foreign.tokenizer().save(out)
    close(found, leaves_of(open_source(out)))
    mark = lambda source: source.processor().tokenizer.fingerprint
    assert mark(source) == mark(open_source(base))
    assert (
        command.main(
            [f"--source={tmp_path / 'adapter'}", f"--target={tmp_path / 'no'}", "--format=peft"]
        )
        == 2
    )


def test_an_adapter_over_deepseeks_names_is_read_with_its_fused_maps_taken_apart(
    original, tmp_path
):
    rng = np.random.default_rng(0)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    width = foreign.config().understanding_encoder.width
    qkv = "base_model.model.vision_model.vision_tower.blocks.1.attn.qkv"
    a, b = draw(2, width), draw(3 * width, 2)
    tensors = {f"{qkv}.lora_A.weight": a, f"{qkv}.lora_B.weight": b}
    adapter = plant(tmp_path / "adapter", original, tensors)
    source = open_source(adapter).require()
    base = leaves_of(open_source(original))
    delta = (b @ a).T.numpy().reshape(width, 3, width)
    for i, letter in enumerate("qkv"):
        name = f"understanding_encoder.blocks.attention.{letter}.kernel"
        want = base[name].astype(np.float32)
        np.testing.assert_allclose(
            source.read(name, 1), want[1] + 2 * delta[:, i], rtol=1e-5, atol=1e-5
        )
        assert np.array_equal(source.read(name, 0), base[name][0])
    alone = {
        "base_model.model.model.layers.0.mlp.up_proj." + x: y
        for x, y in (("lora_A.weight", draw(2, 64)), ("lora_B.weight", draw(96, 2)))
    }
    source = open_source(plant(tmp_path / "alone", original, alone)).require()
    assert list(source.pairs) == [("transformer.blocks.up.kernel", 0)]


def plant(directory, base, tensors: dict, **config):
    from safetensors.torch import save_file

    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    (directory / "adapter_config.json").write_text(json.dumps(values | config))
    return directory


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA'; an adapter that is read can only be 'LORA'"),
        ("use_dora", True, "use_dora is True: a field that is not honoured here"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'"),
        ("layer_replication", [[0, 2]], "layer_replication is"),
        ("alpha_pattern", {"q_proj": "x"}, "alpha_pattern.q_proj is 'x'"),
        ("base_model_name_or_path", None, "base_model_name_or_path is None: must name the weights"),
        ("r", 8, r"shape: \S+lora_A.weight is \(3, 64\) in the file, \(8, 64\) by the config"),
    ],
)
def test_what_of_an_adapter_is_not_honoured_is_refused_by_its_field(
    written, tmp_path, field, value, says
):
    directory = shutil.copytree(written[0], tmp_path / "adapter")
    (directory / "adapter.json").unlink()
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(WeightsError, match=says):
        open_source(directory).require()


def test_a_pair_that_lacks_a_half_and_names_of_another_model_are_told(base, tmp_path):
    key = f"{ours.PREFIX}model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    half = plant(tmp_path / "half", base, {key: torch.zeros(2, 64)})
    with pytest.raises(WeightsError, match=r"missing: \S+q_proj.lora_B.weight \(64, 2\)"):
        open_source(half).require()
    other = {key.replace("q_proj", "c_attn"): torch.zeros(2, 64), key: torch.zeros(2, 64)}
    with pytest.raises(WeightsError, match=r"unknown: \S+c_attn.lora_A.weight"):
        open_source(plant(tmp_path / "other", base, other)).require()
    with pytest.raises(WeightsError, match="an adapter whose base is not found; put the folder"):
        open_source(plant(tmp_path / "gone", tmp_path / "nowhere", other))
    with pytest.raises(WeightsError, match="missing: the pairs, of which its file holds none"):
        open_source(plant(tmp_path / "empty", base, {})).require()


def test_a_base_on_this_disk_is_found_though_the_adapter_names_a_revision(base, tmp_path):
    """Which is of a hub id. Its tokenizer is the base's, also for a config that begins with it."""
    up = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_"
    pair = {f"{up}A.weight": torch.zeros(2, 64), f"{up}B.weight": torch.zeros(96, 2)}
    adapter = plant(tmp_path / "adapter", base, pair, revision="main")
    assert open_source(adapter).require()
    assert values_for_config(adapter)["tokenizer"] == str(base)
    for i, unknown in enumerate((None, "s3://bucket/janus")):
        adapter = plant(tmp_path / str(i), base, pair, base_model_name_or_path=unknown)
        assert open_source(adapter, base=base).require()
    with pytest.raises(WeightsError, match="s3://bucket/janus: weights are not read from such"):
        open_source(adapter)


def janus_of(model):
    """transformers' Janus within a model of PEFT."""
    return model.base_model.model if hasattr(model, "peft_config") else model


TEXT = (np.arange(12) * 7 % 200).astype(np.int32)
IDS = (np.arange(16) * 5 % 64).astype(np.int32)


def their_gradient(model, picture: np.ndarray) -> tuple[dict, float]:
    """Name -> gradient of the loss of text after a picture, and of image ids after text."""
    janus = janus_of(model)
    text = torch.from_numpy(TEXT)[None].long()
    slots = torch.full((1, 16), foreign.tokenizer().placeholder)
    pixels = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
    read = torch.cat([text[:, :6], slots, text[:, 6:]], 1)
    logits = model(input_ids=read, pixel_values=pixels).logits
    loss = torch.nn.functional.cross_entropy(logits[0, 21:27], text[0, 6:])
    ids = torch.from_numpy(IDS)[None].long()
    words = janus.model.language_model.get_input_embeddings()(text)
    both = torch.cat([words, janus.prepare_embeddings_for_image_generation(ids)], 1)
    hidden = janus.model.language_model(inputs_embeds=both)[0]
    drawn = janus.model.generation_head(hidden[:, 11:27])
    loss = loss + torch.nn.functional.cross_entropy(drawn[0], ids[0])
    loss.backward()
    found = {name: x.grad.numpy() for name, x in model.named_parameters() if x.requires_grad}
    return found, loss.item()


def our_gradient(base, tensors: dict, picture: np.ndarray) -> tuple[dict, float]:
    """The same of a model with pairs beside its linear maps."""
    model, _ = janus_jax.load(base, unrolled=False)
    paths = [path.replace(".", "/") for path in adapters.TARGETS]
    low_rank_layers.attach(model, paths, adapters.RANK, 6 / 3**0.5, 0.0, jax.random.key(0))
    for path, pair in model.lora.paths().items():
        for half in "ab":
            x = jnp.asarray(tensors[f"lora.{path.replace('/', '.')}.{half}"])
            setattr(pair, half, nnx.Param(x))
    whole = adapters.nested({n: x for n, x in tensors.items() if not n.startswith("lora.")})
    graphdef, learns, rest = state.split(model, ("lora", *adapters.WHOLE))
    zeros = lambda *shape: np.zeros((1, *shape), np.int32)
    slots = zeros(28)
    slots[0, 6:22] = 1 + np.arange(16)
    drawing = zeros(28)
    drawing[0, 12:] = 1 + np.arange(16)
    order = np.arange(28, dtype=np.int32)[None], np.ones((1, 28), np.int32)
    read = zeros(28)
    read[0, :6], read[0, 22:] = TEXT[:6], TEXT[6:]
    words = zeros(28)
    words[0, :12] = TEXT
    names = (
        "tokens", "understanding_images", "image_ids", "understanding_slots", "generation_slots",
        "positions", "segment_ids",
    )  # fmt: skip
    given = {
        "read": (read, picture[None, None], zeros(0), slots, zeros(28), *order),
        "drawn": (words, picture[None, None][:, :0], IDS[None], zeros(28), drawing, *order),
    }
    given = {kind: tiny.put(dict(zip(names, x))) for kind, x in given.items()}

    def loss(learns):
        model = low_rank_layers.with_pairs(nnx.merge(graphdef, learns, rest))
        seen, drawn = (model(given[kind], given[kind]["image_ids"]) for kind in ("read", "drawn"))

        def of(head, hidden, ids):
            logits = jax.sharding.reshard(head(hidden), jax.P(None, None, None))[0]
            return optax.softmax_cross_entropy_with_integer_labels(logits, ids).mean()

        return of(model.text_head, seen[:, 21:27], TEXT[6:]) + of(
            model.image_head, drawn[:, 11:27], IDS
        )

    found, gradient = jax.jit(jax.value_and_grad(loss))(learns | whole)
    return flatten(gradient), float(found)


@pytest.mark.slow
def test_a_steps_gradients_are_pefts(base, written, one_device):
    """Of every pair, and of what is trained whole beside them."""
    peft = pytest.importorskip("peft", reason="pip install peft")
    directory, tensors = written
    rng = np.random.default_rng(0)
    picture = rng.uniform(-1, 1, (32, 32, 3)).astype(np.float32)
    model = transformers.JanusForConditionalGeneration.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(model, directory, is_trainable=True).eval()
    want, loss = their_gradient(model, picture)
    found, ours_ = our_gradient(base, tensors, picture)
    assert ours_ == pytest.approx(loss, rel=1e-6)
    rows = {row.ours: row for row in janus_hf.rows(open_source(base).config)}
    compared = 0
    for name, x in found.items():
        path, _, half = name.removeprefix("lora.").rpartition(".")
        row = rows[f"{path}.kernel" if name.startswith("lora.") else name]
        ending = f"lora_{half.upper()}.default.weight"
        for i in range(row.layers or 1):
            module, _, last = row.name(i).rpartition(".")
            last = ending if name.startswith("lora.") else f"modules_to_save.default.{last}"
            g = want[f"{ours.PREFIX}{module}.{last}"]
            mine = np.asarray(x[i] if row.layers else x)
            mine = mine.T if mine.ndim == 2 else mine
            assert np.abs(mine - g).max() <= 1e-5 * np.abs(g).max(), (name, i)
            compared += 1
    assert compared == len(want) > 20
