"""Questions about pictures that are read as tiles: `understand`, the server's engine, scores."""

import base64
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support import servers, tiny
from support.labelled import opened, photos
from support.mesh import on_mesh
from support.sampling import LENGTH, WORDS, forward, said

import janus_jax
from janus_jax import understand
from janus_jax.data import tiled_chat, tiles
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.processor import Processor
from janus_jax.model.batch import pixels
from janus_jax.sample import score
from janus_jax.sample.understand import prepare
from janus_jax.serve.engine import Engine
from janus_jax.weights import convert, load
from janus_jax.weights.source import open_source

CONFIG = tiny.small(
    understanding_encoder=dataclasses.replace(
        tiny.CONFIG.understanding_encoder, tiles=4, pixel_shuffle=2
    )
)
TOWER = CONFIG.understanding_encoder


@pytest.fixture(scope="module")
def weights():
    with on_mesh():
        model = tiny.make_model(CONFIG)
    for kernel in (model.text_embedding.table, model.understanding_adaptor.fc2.kernel):
        kernel[...] = kernel[...] * 4
    return model


@pytest.fixture
def model(weights, one_device):
    return weights


@pytest.fixture
def processor():
    base = tiny.processor()
    return Processor(base.tokenizer, base.template, TOWER.tokens, base.generation_tokens)


def photo(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_hand(model, processor, question: str, *pictures) -> str:
    """A greedy answer, the whole row run anew for each word, the tiles cut here."""
    conversation = [*said(question, *pictures), {"role": "assistant", "content": ""}]
    cut = [tiles.cut(picture, TOWER) for picture in pictures]
    spans = processor.conversation(conversation, tiles=map(len, cut))
    ids = np.concatenate([span[0] for span in spans])
    table = np.asarray(model.text_embedding.table[...])
    x = np.zeros((1, LENGTH, table.shape[1]), np.float32)
    x[0, : len(ids)] = table[ids]
    shown = jnp.asarray(pixels(np.concatenate(cut)))
    features = jax.jit(lambda model, x: model.embed_images(x))(model, shown)
    is_shown = ids == processor.tokenizer.placeholder
    x[0, : len(ids)][is_shown] = np.asarray(features).reshape(-1, table.shape[1])
    out = []
    head = jax.jit(lambda model, hidden: model.text_head(hidden))
    for place in range(len(ids), len(ids) + WORDS):
        out.append(int(np.argmax(head(model, forward(model, jnp.asarray(x)))[0, place - 1])))
        x[0, place] = table[out[-1]]
    return processor.tokenizer.decode(out).strip()


def test_answers_are_those_of_tiles_cut_by_hand(model, processor):
    wide, small = photo(64, 16), photo(12, 10)
    want = by_hand(model, processor, "same?", wide, small)
    assert understand(model, processor, said("same?", wide, small), max_new_tokens=WORDS) == want
    other = photo(64, 16)
    other.paste((255, 0, 0), (48, 0, 64, 16))  # the last tile
    assert understand(model, processor, said("same?", other, small), max_new_tokens=WORDS) != want


def test_files_are_counted_by_their_headers_and_streams_are_read_once(processor):
    picture = photo(64, 16)
    file = io.BytesIO()
    picture.save(file, "PNG")

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    want = prepare(processor, said("what?", picture), TOWER)
    assert len(want[2]) == 5 and want[1].max() == 5 * TOWER.tokens
    for source in (file, file.getvalue(), Pipe(file.getvalue()), np.asarray(picture)):
        for got, same in zip(prepare(processor, said("what?", source), TOWER), want):
            np.testing.assert_array_equal(got, same)
    cut = tiled_chat.Cut.of(picture, TOWER, processor.background)
    for got, same in zip(prepare(processor, said("what?", cut), TOWER), want):
        np.testing.assert_array_equal(got, same)


def test_pictures_that_cannot_be_read_and_prompts_that_are_too_long_are_told(
    processor, monkeypatch
):
    with pytest.raises(ImageError, match=r"message 0: .*no\.png: no such file"):
        prepare(processor, said("what?", "no.png", photo(64, 16)), TOWER)
    monkeypatch.setattr(tiles, "cut", lambda *_: pytest.fail("decoded before it was counted"))
    processor.context = 60
    with pytest.raises(
        ValueError, match=r"2 pictures x 22 \+ 1 pictures x 6 .*leave out 1 pictures"
    ):
        prepare(processor, said("what?", photo(64, 16), photo(9, 9), photo(16, 64)), TOWER)


def test_the_engine_and_the_server_answer_alike(model, processor):
    conversation = said("what?", photo(64, 16))
    want = understand(model, processor, conversation, max_new_tokens=WORDS)
    engine = Engine(model, processor, rows=2)
    try:
        found = engine.answer(conversation, max_new_tokens=WORDS).result()
        file = io.BytesIO()
        photo(64, 16).save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        asked = servers.user([picture, {"type": "text", "text": "what?"}])
        with servers.serving(engine) as address:
            how = {"max_tokens": WORDS, "temperature": 0}
            reply = servers.ask(address, asked | how).json()
    finally:
        engine.close()
    assert reply["choices"][0]["message"]["content"] == want
    assert reply["usage"]["prompt_tokens"] == found.prompt_tokens
    assert found.text == want and found.prompt_tokens > 5 * TOWER.tokens


def test_a_score_sees_the_tiles(model, processor, tmp_path):
    line = photos(tmp_path, 1)
    photo(64, 16).save(tmp_path / "photos" / "0.png")
    read = score.reader(opened(line), processor, TOWER, "chat", ())
    rows, shown = read(0)
    np.testing.assert_array_equal(shown, tiles.cut(photo(64, 16), TOWER))
    assert sum(len(ids) for ids, role, _ in rows[0] if role == 1) == 5 * TOWER.tokens
    changed = shown.copy()
    changed[3] = 255
    seen, other = (score.scores(model, processor, [(rows, x)]) for x in (shown, changed))
    assert abs(seen[0] - other[0]) > 1e-3


def test_weights_come_back_whole_and_other_programs_layouts_are_refused(
    model, processor, tmp_path, one_device
):
    params = nnx.to_pure_dict(nnx.state(model))
    load.export(tmp_path / "own", params, CONFIG, processor)
    back, read = janus_jax.load(tmp_path / "own", unrolled=False)
    assert back.config == CONFIG and read.understanding_tokens == TOWER.tokens
    tiny.same_bits(nnx.to_pure_dict(nnx.state(back)), tiny.numbers(params))
    question = said("what?", photo(64, 16))
    served, _ = janus_jax.load(tmp_path / "own")
    answers = [understand(m, processor, question, max_new_tokens=WORDS) for m in (served, model)]
    assert answers[0] == answers[1]
    for layout in ("deepseek", "transformers"):
        with pytest.raises(ValueError, match=r"tiles is 4(.|\n)*pixel_shuffle is 2"):
            convert.to_layout(open_source(tmp_path / "own"), tmp_path / "out", layout)


def test_weights_of_another_adaptor_say_which_fields_make_its_width(model, tmp_path, one_device):
    base = nnx.to_pure_dict(nnx.state(tiny.make_model()))
    load.export(tmp_path / "base", base, tiny.CONFIG, tiny.processor())
    params = nnx.to_pure_dict(nnx.state(model))
    with pytest.raises(ValueError, match=r"width \* pixel_shuffle\^2\) is 32 there, 128 here"):
        load.import_weights(tmp_path / "base", params, config=CONFIG)
