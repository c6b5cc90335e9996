"""A browser without a window, and an engine that draws as fast as a test lets it."""

import contextlib
import os
import pathlib
import shutil
import threading

import numpy as np
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from janus_jax.serve.engine import Engine

NAMES = ("chromium", "chromium-browser", "google-chrome")
BINARY = next((found for found in map(shutil.which, NAMES) if found), None)


class Gated(Engine):
    """Tells of drawings a row of ids at a time and of answers a stretch at a time, each when a test
    lets it (`let`), or at once while it is `open`."""

    def __init__(self, *args, **how):
        self._turns = threading.Semaphore(0)
        self.open = True
        super().__init__(*args, **how)

    def let(self, count: int = 1):
        self._turns.release(count)

    def let_all(self):
        self.open = True
        self.let()

    def hold(self):
        """From now on nothing is told before it is let."""
        while self._turns.acquire(blocking=False):
            pass
        self.open = False

    def draw(self, *args, on_ids=None, **how):
        columns = self.model.config.generation_encoder.grid[1]
        told = 0

        def tell(ids):
            nonlocal told
            for i in ids:
                if told % columns == 0:
                    self._wait()
                on_ids(np.array([i]))
                told += 1

        return super().draw(*args, on_ids=on_ids and tell, **how)

    def answer(self, *args, on_text=None, **how):
        def tell(text):
            self._wait()
            on_text(text)

        return super().answer(*args, on_text=on_text and tell, **how)

    def _wait(self):
        if not self.open:
            assert self._turns.acquire(timeout=60), "the test let nothing more"
        if self.open:
            self._turns.release()  # and the next that waits


@contextlib.contextmanager
def chromium():
    """A driver of chromium, whose log can be read."""
    options = webdriver.ChromeOptions()
    options.binary_location = BINARY
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # where no chromedriver is installed, selenium looks for one
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


CONTROLS = """
const all = document.querySelectorAll(
  "button, input, textarea, a[href], img:not([alt='']), [role=progressbar], [role=group], main");
return [...all].filter((node) => node.checkVisibility())
"""
TOO_WIDE = """
const parts = document.querySelectorAll("html, body, main, footer, #composer");
return [...parts].filter((node) => node.scrollWidth > node.clientWidth).map((node) => node.tagName)
"""
GIVE = """
const [kind, name, type, bytes] = arguments;
const data = new DataTransfer();
data.items.add(new File([Uint8Array.from(bytes)], name, { type }));
const how = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
document.body.dispatchEvent(
  kind === "paste" ? new ClipboardEvent(kind, how) : new DragEvent(kind, how));
"""


class Page:
    """The page at `address`, and what a test does there."""

    def __init__(self, driver, address: str):
        self.driver = driver
        self.address = address
        self.script = driver.execute_script

    def command(self, name: str, **how):
        """One of the browser's own (chromedevtools.github.io/devtools-protocol)."""
        self.driver.execute_cdp_cmd(name, how)

    def open(self, width=1280, height=800, scheme="light"):
        """Loads it anew, on a screen of this size in pixels, and waits for the model's name."""
        media = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[media])
        screen = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.command("Emulation.setDeviceMetricsOverride", **screen)
        self.driver.get(self.address)
        self.wait("return !document.querySelector('#send').disabled")
        return self

    def wait(self, script: str):
        """What the script returns, as soon as that is true."""
        until = WebDriverWait(self.driver, 120, 0.02).until
        return until(lambda _: self.script(script), script)

    def idle(self):
        """Waits until nothing runs."""
        self.wait("return document.querySelector('#log').ariaBusy === 'false'")

    def all(self, css: str) -> list:
        return self.driver.find_elements("css selector", css)

    def button(self, text: str):
        """The last that is shown with this text."""
        return [one for one in self.all("button, .frame a") if one.text == text][-1]

    def keys(self, *keys: str):
        """Typed into whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def send(self, text: str):
        """Typed into what has the focus, with Enter."""
        self.keys(text, Keys.ENTER)

    def focused(self) -> str:
        """The name of what has the focus."""
        return self.driver.switch_to.active_element.accessible_name.strip()

    def give(self, kind: str, name: str, media_type: str, content: bytes):
        """Drops or pastes a file. kind: "drop" or "paste"."""
        self.script(GIVE, kind, name, media_type, list(content))

    def nameless(self) -> list[str]:
        """What a screen reader cannot name, of all that is shown."""
        found = [one for one in self.script(CONTROLS) if not one.accessible_name.strip()]
        return [one.get_attribute("outerHTML") for one in found]

    def too_wide(self) -> list[str]:
        """The parts whose content is wider than they are."""
        return self.script(TOO_WIDE)

    def source(self) -> str:
        """The address of the last picture that was drawn."""
        return self.all(".frame:last-child .paper img")[-1].get_attribute("src")

    def log(self) -> list[str]:
        """What the browser complained about since this was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def shot(self, name: str):
        """A screenshot, where the environment names a folder for them."""
        if folder := os.environ.get("PAGE_SCREENSHOTS"):
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(f"{folder}/{name}.png")
