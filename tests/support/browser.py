"""A browser without a window, and an engine that draws as fast as a test lets it."""

import contextlib
import functools
import shutil
import threading

from janus_jax.serve.engine import Engine

BINARY = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


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

        def tell(ids):
            for start in range(0, len(ids), columns):
                self._wait()
                on_ids(ids[start : start + columns])

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
def chromium(downloads):
    """A driver of chromium; what is downloaded lies in the folder `downloads`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BINARY
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = shutil.which("chromedriver")  # else selenium looks for one
    service = (
        functools.partial(webdriver.ChromeService, found) if found else webdriver.ChromeService
    )
    driver = webdriver.Chrome(options, service())
    try:
        how = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", how)
        yield driver
    finally:
        driver.quit()
