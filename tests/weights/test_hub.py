"""What means a repository of the hub, and why there may be no weights in it."""

import pytest

from janus_jax.weights import hub, table
from janus_jax.weights.source import open_source

PAGE = "https://huggingface.co/deepseek-ai/Janus-Pro-1B"


@pytest.mark.parametrize(
    "path, revision",
    [
        ("deepseek-ai/Janus-Pro-1B", None),
        ("deepseek-ai/Janus-Pro-1B/", None),
        (PAGE, None),
        (f"{PAGE}/", None),
        (f"{PAGE}/tree/main", "main"),
        (f"{PAGE}/blob/v2/config.json?download=true", "v2"),
        (PAGE.removeprefix("https://"), None),
        ("http://hf.co/deepseek-ai/Janus-Pro-1B#usage", None),
        ("hf://deepseek-ai/Janus-Pro-1B", None),
    ],
)
def test_an_id_with_a_slash_and_a_pages_address_are_the_repository(path, revision):
    assert hub.repository(path) == ("deepseek-ai/Janus-Pro-1B", revision)


@pytest.mark.parametrize(
    "path", ["./runs/stage3", "/runs/stage3", "runs", "../a/b", "a/b/c", "~/a"]
)
def test_paths_are_no_repositories(path):
    assert hub.repository(path) is None


@pytest.mark.parametrize(
    "path",
    ["https://huggingface.co/datasets/a/b", "https://github.com/a/b", f"{PAGE}/discussions/3"],
)
def test_addresses_of_something_else_are_refused(path):
    with pytest.raises(ValueError, match=r"owner/name|deepseek-ai/Janus-Pro-1B"):
        hub.repository(path)
    with pytest.raises(ValueError, match="'v2' is asked for as well"):
        hub.repository(f"{PAGE}/tree/main", "v2")


def test_pickles_that_were_not_asked_for_are_the_reason_that_is_told(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    fetch = lambda repo, revision, allow_patterns: asked.append((repo, revision)) or tmp_path
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no Python pickles.*allow_pickle=True"):
        open_source(f"{PAGE}/", revision="v1")
    assert asked == [("deepseek-ai/Janus-Pro-1B", "v1")]
    with pytest.raises(FileNotFoundError) as error:
        open_source(PAGE, allow_pickle=True)
    assert "not asked for" not in str(error.value)


def test_the_weights_of_the_quick_start_come_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_source("quickstart")
    source.require()
    assert source.config.transformer.layers == 3
    assert source.processor().generation_tokens == 36
    with pytest.raises(table.WeightsError, match="revision"):
        open_source("quickstart", revision="main")


def test_a_folder_called_quickstart_comes_before_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    with pytest.raises(table.NoWeightsError, match="quickstart"):
        open_source("quickstart")
