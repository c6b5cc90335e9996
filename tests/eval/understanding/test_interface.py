import inspect

import pytest

from janus_jax.eval import benchmark

NAMES = ("gqa", "mmbench", "mme", "mmmu", "mmvet", "pope", "seedbench", "vqav2")
JUDGED = {"mmvet"}


def defined(protocol) -> dict[str, list[str]]:
    """Function of a protocol -> its parameters."""
    return {
        name: list(inspect.signature(found).parameters)
        for name, found in vars(protocol).items()
        if inspect.isfunction(found) and not name.startswith("_")
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_defines_what_the_interface_says(name):
    module = benchmark.load("understanding", name)
    wanted = defined(benchmark.Understanding)
    assert set(wanted) == {"read", "ask", "mark", "tally", "scores"}
    wanted |= defined(benchmark.Judged) if name in JUDGED else {}
    found = {one: list(inspect.signature(getattr(module, one)).parameters) for one in wanted}
    assert found == wanted
    assert module.PROTOCOLS[0] == "janus" and 0 < module.MAX_NEW_TOKENS <= 1024
    assert module.ABOUT and module.HEADLINE


def test_all_benchmarks_of_the_paper_are_found_by_their_names():
    assert set(NAMES) <= set(benchmark.NAMES["understanding"])
