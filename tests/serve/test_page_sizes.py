"""The page's choice of a size, in a real browser. PAGE_SCREENSHOTS names a folder for screenshots."""

import dataclasses

import pytest
from selenium.webdriver.support.ui import Select
from support import browser as made
from support import tiny
from support.mesh import on_mesh
from support.sampling import make
from support.servers import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(made.BINARY is None, reason="no chromium is installed"),
]
VQ = dataclasses.replace(tiny.CONFIG.generation_encoder, sizes=("24x16", "16x24"))


def test_the_frame_has_the_chosen_size_from_the_start_and_the_picture_fills_it():
    with on_mesh():
        engine = made.Gated(make(tiny.small(generation_encoder=VQ)), tiny.processor(), rows=4)
    with serving(engine) as address, made.chromium() as driver:
        page = made.Page(driver, address).open()
        page.all("#adjust")[0].click()
        sizes = Select(page.all("#draw-settings [name=size]")[0])
        assert [one.text for one in sizes.options] == ["16x16", "24x16", "16x24"]
        for size in ("16x24", "24x16"):
            width, height = map(int, size.split("x"))
            sizes.select_by_visible_text(size)
            page.all("#words")[0].click()
            engine.hold()
            page.send("a red circle")
            engine.let(2)  # 8 tokens: two rows of the tall picture, one of the wide
            paper = "const paper = [...document.querySelectorAll('.paper')].at(-1);"
            image = f"{paper} const image = paper?.querySelector('img');"
            box = (
                f"{paper} const box = paper.getBoundingClientRect(); return [box.width, box.height]"
            )
            page.wait(f"{image} return image?.naturalHeight > 0")
            before = page.script(box)
            assert before[0] / before[1] == pytest.approx(width / height, rel=0.02)
            page.shot(f"light-1280-6-{size}-during")
            engine.let_all()
            page.idle()
            whole = page.script(f"{image} return [image.naturalWidth, image.naturalHeight]")
            assert whole == [width, height] and page.script(box) == before
            assert size in page.all(".facts")[-1].get_attribute("textContent")
            page.shot(f"light-1280-6-{size}-after")
        assert page.too_wide() == [] and page.log() == []
    engine.close()
