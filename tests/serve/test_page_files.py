"""What the page is made of."""

import fnmatch
import re
import tomllib
import urllib.request

from support.paths import ROOT

PAGE = ROOT / "janus_jax" / "serve" / "page"


def test_the_pages_files_are_whole_and_name_nothing_from_elsewhere():
    files = {path.name: path.read_text("utf-8") for path in PAGE.iterdir()}
    html = files["index.html"]
    for name, text in files.items():
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|//[a-z]+\.|@import", text), f"{name}: another site"
        assert len(text.splitlines()) <= 300, name
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)
    for tag in re.findall(r"<script.*?</script>", html, re.DOTALL):
        assert re.fullmatch(r'<script type="module" src="page/\w+\.js"></script>', tag)
    used = set(re.findall(r'"page/([\w.]+)"', html))
    for text in files.values():
        used |= set(re.findall(r'from "\./(\w+\.js)"', text))
    assert used | {"index.html"} == set(files)


def test_the_pages_files_are_installed_with_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["janus_jax.serve"]
    for path in PAGE.rglob("*"):
        name = str(path.relative_to(PAGE.parent))
        assert path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def test_the_page_is_served_with_its_types_and_only_its_own_parts_may_run(server):
    kinds = {"": "text/html", "page/page.css": "text/css", "page/page.js": "text/javascript"}
    for path, kind in kinds.items():
        with urllib.request.urlopen(f"{server}/{path}") as reply:
            assert reply.headers.get_content_type() == kind
            policy = reply.headers["Content-Security-Policy"]
            assert "unsafe" not in policy and "script-src 'self'" in policy
