"""The line that says how far a job is."""

import io

import pytest

from janus_jax.common.progress import Progress, span
from janus_jax.common.text import size
from janus_jax.sample.batches import Drawing


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_progress_tells_the_rate_and_the_time_left_of_what_is_new():
    out, now = io.StringIO(), [0.0]
    progress = Progress("mine", 1000, out=out, clock=lambda: now[0])
    progress.skip(500)
    now[0] = 20.0
    progress(100, ", 3 unusable")
    assert out.getvalue() == "mine: 600 of 1,000 records, 5/s, 1 min left, 3 unusable\n"


def test_it_is_one_line_on_a_terminal_and_a_line_every_ten_seconds_elsewhere():
    for out, count in ((Screen(), 8), (io.StringIO(), 3)):
        with Drawing(8, out=out, clock=iter(range(0, 99, 4)).__next__) as bar:
            for done in range(64, 577, 64):
                bar.tell(done, 576)
        assert out.getvalue().count("images/min") == count
        assert "576 of 576 steps, 13.3 images/min, 0 s left" in out.getvalue(), (
            "8 pictures less the first steps, which compile, in 32 s"
        )
    assert "drawing 8 (the first time compiles) ..." not in out.getvalue()


def test_where_the_end_is_not_known_only_amount_and_speed_are_told():
    out, now = io.StringIO(), [0.0]
    speed = lambda count, seconds: f"{size(count / seconds)}/s"
    bar = Progress("written", 0, "", size, speed, out, lambda: now[0])
    for now[0] in (5.0, 10.0):
        bar(10**9)
    assert out.getvalue() == "written: 2.00 GB, 200 MB/s\n"


@pytest.mark.parametrize("seconds, text", [(4.4, "4 s"), (130, "2 min"), (7300, "2 h 1 min")])
def test_spans(seconds, text):
    assert span(seconds) == text
