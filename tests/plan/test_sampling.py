"""A token of drawing and of answering on chips that are not here."""

import jax
import pytest
from support import quickstart, tiny
from support.mesh import on_mesh

from janus_jax.model.serving import blank_cache, serving
from janus_jax.plan import __main__ as command
from janus_jax.plan import sampling


def test_a_token_reads_the_layers_its_own_head_and_the_cache(monkeypatch):
    """Of every row; a picture takes two rows and 16 tokens. What is compiled has the shapes of what
    runs."""
    monkeypatch.setattr(sampling, "ROWS", (2,))
    monkeypatch.setattr(sampling, "LENGTH", 128)
    lower, lowered = sampling.lower, []
    monkeypatch.setattr(sampling, "lower", lambda *a: lowered.append(lower(*a)) or lowered[0])
    said = []
    plan = sampling.tokens(tiny.CONFIG, quickstart.CPU, jax.devices()[0], None, said.append)
    image, text = plan["tokens"]
    assert (image["writes"], text["writes"]) == ("image", "text")
    llm = tiny.CONFIG.transformer
    layers = 4 * llm.layers * (4 * llm.width**2 + 3 * llm.width * llm.mlp_width)
    cache = 4 * 2 * 2 * llm.layers * llm.width * 128
    head = 4 * llm.width * llm.vocabulary
    assert layers + cache < image["bytes"] < text["bytes"]
    assert layers + cache + head < text["bytes"] < 4 * (layers + cache + head)
    assert image["images_per_s"] == pytest.approx(1 / (16 * image["seconds"]))
    assert text["tokens_per_s"] == pytest.approx(2 / text["seconds"])
    assert "images/s" in said[1] and "guided drawing" in said[-1]
    with on_mesh():
        model = serving(tiny.make_model())
        real = model, blank_cache(model, 2, 128)
    shapes = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]
    assert shapes(lowered[0].args_info)[: len(shapes(real))] == shapes(real)


def test_dtype_is_a_flag_of_sample_alone(capsys):
    path = f"--config={quickstart.CONFIGS_DIR / 'quickstart.py'}"
    assert command.main([path, "--topology=cpu:8", "--dtype=int8"]) == 2
    assert "--dtype is for --sample" in capsys.readouterr().err
