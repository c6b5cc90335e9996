"""The page in a real browser. PAGE_SCREENSHOTS names a folder for screenshots."""

import itertools
import re
import urllib.request

import pytest
from PIL import Image, ImageChops
from selenium.webdriver.common.keys import Keys
from support import browser as made
from support.held_engine import soon

import janus_jax

PROMPT = "a triangle above a circle"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(made.BINARY is None, reason="no chromium is installed"),
]
HEIGHT = "(document.querySelector('.paper img')?.naturalHeight ?? 0)"  # what is shown, in pixels


@pytest.fixture(scope="module")
def engine(loaded):
    gated = made.Gated(*loaded)
    yield gated
    gated.let_all()
    gated.close()


@pytest.fixture(scope="module")
def driver():
    with made.chromium() as found:
        yield found


@pytest.fixture
def page(driver, server, engine):
    engine.open = True
    page = made.Page(driver, server)
    yield page.open()
    engine.let_all()
    assert page.log() == []


def metric(server, name):
    with urllib.request.urlopen(f"{server}/metrics") as reply:
        return float(re.search(rf"^janus_jax_{name} (.*)$", reply.read().decode(), re.M)[1])


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_drawing_grows_row_by_row_at_every_width_and_nothing_moves(page, engine, width, scheme):
    page.open(width, 740 if width == 360 else 900, scheme)
    page.shot(f"{scheme}-{width}-1-before")
    engine.hold()
    page.send(PROMPT)
    frame = "return JSON.stringify(document.querySelector('.paper').getBoundingClientRect())"
    heights = []
    places = set()
    for row in range(1, 6):
        engine.let()
        heights.append(page.wait(f"return {HEIGHT} >= {4 * row} && {HEIGHT}"))
        places.add(page.script(frame))
        if row == 3:
            bar = page.all("[role=progressbar]")[0]
            assert bar.get_attribute("aria-valuetext") == "18 of 36 tokens"
            page.shot(f"{scheme}-{width}-2-during")
    assert heights == [4, 8, 12, 16, 20]
    engine.let_all()
    page.idle()
    places.add(page.script(frame))
    assert page.script(f"return {HEIGHT}") == 24 and len(places) == 1
    page.shot(f"{scheme}-{width}-3-after")
    assert page.too_wide() == []
    page.all("#adjust")[0].click()
    for mode in ("Draw", "Ask"):
        next(one for one in page.all(".modes span") if one.text == mode).click()
        assert page.nameless() == []
        assert page.too_wide() == []


def test_four_drawings_on_a_phone_stay_where_they_are(page, engine):
    page.open(360, 740)
    page.all("#adjust")[0].click()
    page.all("[name=n]")[0].clear()
    page.all("[name=n]")[0].send_keys("4")
    page.all("#words")[0].click()
    engine.hold()
    page.send(PROMPT)
    tops = "return [...document.querySelectorAll('.paper')].map((one) => one.offsetTop)"
    before = page.wait(
        f"{tops.replace('return', 'const tops =')}; return tops.length === 4 && tops"
    )
    engine.let_all()
    page.idle()
    assert page.script(tops) == before
    page.shot("light-360-4-four")
    assert page.too_wide() == []


def test_a_download_is_the_picture_that_generate_draws_with_how_it_was_drawn(
    page, loaded, tmp_path
):
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.all("#adjust")[0].click()
    how = dict(seed=7, guidance_scale=3.5, temperature=0.25, n=2, negative_prompt="a red circle")
    for name, value in how.items():
        field = page.all(f"#draw-settings [name={name}]")[0]
        field.clear()
        field.send_keys(str(value))
    page.all("#words")[0].click()
    page.send(PROMPT)
    page.idle()
    facts = "seed\u00a07 · guidance\u00a03.5 · temperature\u00a00.25 · without “a red circle”"
    assert page.all(".facts")[-1].get_attribute("textContent") == facts
    page.button("Download").click()
    path = tmp_path / "a-triangle-above-a-circle-seed7-1.png"
    assert soon(path.exists)
    count = how.pop("n")
    how["cfg_scale"] = how.pop("guidance_scale")
    with Image.open(path) as file:
        told = {name: str(value) for name, value in (how | {"prompt": PROMPT}).items()}
        assert told.items() <= file.info.items()
        drawn = janus_jax.generate(*loaded, PROMPT, images_per_prompt=count, **how)[1]
        assert ImageChops.difference(file.convert("RGB"), drawn).getbbox() is None


def test_a_question_about_a_drawing_is_answered_as_it_is_written(page, engine, loaded):
    page.send(PROMPT)
    page.idle()
    first = page.source()
    page.button("Ask about it").click()
    assert [one.accessible_name for one in page.all("#attached img")] == [PROMPT]
    assert page.focused() == "Message" and page.button("Ask")
    engine.hold()
    page.send("describe the picture.")
    written = [""]
    busy = "document.querySelector('#log').ariaBusy === 'true'"
    words = "document.querySelector('.words')?.textContent.length"
    while page.script(f"return {busy}"):  # the drawing, so the answer too, is any
        engine.let()
        page.wait(f"return {words} > {len(written[-1])} || !({busy})")
        written.append(page.all(".words")[0].text)
    assert all(later.startswith(before) for before, later in itertools.pairwise(written))
    engine.let_all()
    picture = {"type": "image_url", "image_url": {"url": first}}
    asked = [picture, {"type": "text", "text": "describe the picture."}]
    whole = janus_jax.understand(*loaded, [{"role": "user", "content": asked}])
    assert page.all(".words")[0].text == whole and len({*written}) > 2
    assert page.all("#said")[0].get_attribute("textContent") == f"Answer: {whole}"
    assert page.all("#attached img") == []
    # the next question is asked after the first, whose picture goes with it
    page.send("what color is the circle?")
    page.idle()
    second = [{"role": "user", "content": "what color is the circle?"}]
    before = [{"role": "user", "content": asked}, {"role": "assistant", "content": whole}]
    assert page.all(".words")[1].text == janus_jax.understand(*loaded, before + second)


def test_again_with_another_seed_draws_another_picture_and_the_history_shows_both(page):
    page.send(PROMPT)
    page.idle()
    first = page.source()
    page.button("Another seed").click()
    page.idle()
    assert page.source() != first and len({one.text for one in page.all(".facts")}) == 2
    thumbs = page.all(".thumb")
    assert [one.accessible_name for one in thumbs] == [PROMPT, PROMPT]
    thumbs[1].click()
    assert page.all("#viewer img")[0].get_attribute("src") == first
    page.keys(Keys.ESCAPE)
    assert page.all("#viewer[open]") == []


def test_stop_frees_the_servers_rows(page, engine, server):
    drawn = metric(server, "pictures_total")
    engine.hold()
    page.send(PROMPT)
    engine.let(2)
    page.wait(f"return {HEIGHT} === 8")
    assert metric(server, "rows_used") > 0
    page.keys(Keys.ESCAPE)
    page.idle()
    assert page.all(".foot .count")[0].text == "stopped"
    engine.let_all()
    assert soon(lambda: metric(server, "rows_used") == metric(server, "waiting") == 0)
    assert metric(server, "pictures_total") == drawn
    assert page.script(f"return {HEIGHT}") == 8  # what was drawn stays


def test_all_is_done_by_keyboard_alone(page):
    assert page.focused() == "Message"
    page.keys("a red", Keys.SHIFT, Keys.ENTER, Keys.NULL, "circle")
    assert page.script("return words.value") == "a red\ncircle"
    page.keys(Keys.CONTROL, "a", Keys.NULL, PROMPT, Keys.ENTER)
    page.idle()
    order = []
    for _ in range(20):
        page.keys(Keys.TAB)
        order.append(page.focused())
        if order[-1] == "Message":
            break
    order.remove("")  # the document's end, before its beginning
    of = f": {PROMPT}"
    assert order == [
        "Draw", "Attach pictures", "Settings", "Draw", "New chat", PROMPT, "Conversation",
        "Another seed" + of, "Ask about it" + of, "Download" + of, "Message",
    ]  # fmt: skip
    for _ in range(2):
        page.keys(Keys.SHIFT, Keys.TAB, Keys.NULL)
    assert page.focused() == "Ask about it" + of
    page.keys(Keys.ENTER)
    assert page.focused() == "Message"
    page.send("what color is the circle?")
    page.idle()
    assert page.all(".words")[0].text
    page.keys(Keys.TAB)
    assert page.focused() == "Ask"
    page.keys(Keys.ARROW_LEFT)  # arrow left: the other mode
    assert page.focused() == "Draw" and page.all("#send")[0].text == "Draw"


def test_pictures_come_by_drop_paste_and_file_and_too_many_are_refused_with_a_word(
    driver, serve, tmp_path
):
    path = tmp_path / "mine.png"
    Image.new("RGB", (30, 20), "red").save(path)
    with serve(max_pictures=1) as address:
        page = made.Page(driver, address).open()
        for kind in ("drop", "paste"):
            page.give(kind, f"{kind}.png", "image/png", path.read_bytes())
        page.all("#files")[0].send_keys(str(path))
        page.wait("return document.querySelectorAll('#attached img').length === 3")
        names = {one.accessible_name for one in page.all("#attached img")}
        assert names == {"drop.png", "paste.png", "mine.png"}
        page.give("drop", "notes.txt", "text/plain", b"A")
        assert page.all("#notice")[0].text == "No picture: notes.txt."
        page.send("describe the picture.")
        assert "holds 3 pictures, and the server reads 1" in page.all("#notice")[0].text
        assert page.script("return words.value") == "describe the picture."
        for _ in range(2):
            page.all(".remove")[0].click()
        page.all("#adjust")[0].click()
        page.all("[name=max_tokens]")[0].clear()
        page.all("[name=max_tokens]")[0].send_keys("1", Keys.ENTER)
        page.idle()
        assert page.all("#notice")[0].text == "" and page.all(".reply .error") == []
        assert page.all(".words")[0].text and "as many tokens" in page.all(".note")[0].text
        assert page.log() == []


def test_what_cannot_be_done_is_said_in_a_line_beside_it(page):
    page.all("#adjust")[0].click()
    page.all("[name=temperature]")[0].send_keys("-1")
    page.all("#words")[0].click()
    page.send(PROMPT)
    assert page.focused() == "Temperature" and page.all("#log li") == []
    page.all("[name=temperature]")[0].clear()
    page.all("[name=guidance_scale]")[0].send_keys("1e31", Keys.ENTER)
    page.idle()
    line = page.all(".reply .error")[0]
    assert "guidance_scale" in line.text and "must be a finite number in float32" in line.text
    assert line.get_attribute("role") == "alert" and page.all(".reply figure") == []
    (network,) = page.log()
    assert "400 (Bad Request)" in network
    page.wait(f"return words.value === '{PROMPT}'")  # it can be mended
    page.all("[name=guidance_scale]")[0].clear()
    page.all("#words")[0].click()
    net = dict(latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.command("Network.enable")
    page.command("Network.emulateNetworkConditions", offline=True, **net)
    page.keys(Keys.ENTER)
    page.idle()
    assert "The server cannot be reached" in page.all(".reply .error")[1].text
    assert len(page.log()) == 1
    page.command("Network.emulateNetworkConditions", offline=False, **net)
    page.button("Try again").click()
    page.idle()
    assert page.script(f"return {HEIGHT}") == 24


def test_a_server_with_keys_is_asked_again_with_the_key_that_is_typed(driver, serve):
    with serve(api_keys=("a key",)) as address:
        page = made.Page(driver, address)
        driver.get(address)
        page.wait("return !document.querySelector('#door').hidden")
        assert page.focused() == "This server asks for an API key"
        page.shot("light-1280-5-key")
        page.send("another")
        page.wait("return notice.textContent && document.activeElement.id === 'key'")
        assert page.all("#notice")[0].text == "The server does not know this key."
        page.send("a key")
        page.wait("return !document.querySelector('#send').disabled")
        assert not page.all("#door")[0].is_displayed()
        assert page.script("return [localStorage.length, sessionStorage.length]") == [0, 1]
        page.send(PROMPT)
        page.idle()
        assert page.script(f"return {HEIGHT}") == 24
        assert len(page.log()) == 2  # the two refusals
