"""Rewards: what they say of outputs, and what becomes of those that go wrong."""

import http.server
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

from janus_jax.data.toy import shapes
from janus_jax.training import rewards, rewards_http, rewards_self, rewards_shapes, rewards_words
from janus_jax.training.rewards import Asked, RewardError, Scorer, Weighted

PROMPT = Asked("two blue circles")


def scorer(*functions, told=None):
    say = (lambda text: None) if told is None else told.append
    return Scorer("drawing", [Weighted(f"r{i}", 1.0 + i, f) for i, f in enumerate(functions)], say)


def test_every_prompt_of_the_world_is_known_and_scored_as_the_world_does():
    rng = np.random.default_rng(0)
    asked, pictures, right = [], [], []
    for task in shapes.TASKS:
        for _ in range(20):
            prompt, other = shapes.random_prompt(rng, task), shapes.random_prompt(rng, task)
            for drawn in (prompt, other):
                scene = shapes.random_scene(rng, drawn)
                asked.append(Asked(prompt.text))
                pictures.append(Image.fromarray(shapes.draw(scene)))
                right.append(prompt.fits(scene))
    found = rewards_shapes.drawn_right(asked, pictures)
    assert found.dtype == np.float32 and 0.5 < found.mean() < 0.8
    np.testing.assert_array_equal(found, np.array(right, np.float32))
    with pytest.raises(RewardError, match="'a dog' is no prompt of the shapes world"):
        rewards_shapes.drawn_right([Asked("a dog")], pictures[:1])


def test_words_and_numbers_are_compared():
    asked = [Asked("how many?", "three"), Asked("how many?", "12"), Asked("colour?", "red")]
    np.testing.assert_array_equal(rewards_words.match(asked, ["Three.", "13", " red"]), [1, 0, 1])
    np.testing.assert_array_equal(
        rewards_words.number(asked[:2], ["there are 3", "1, no: twelve"]), [1, 1]
    )
    hyphens = ["figure-12", "1,200 or 12", "it is -12"]
    np.testing.assert_array_equal(rewards_words.number([asked[1]] * 3, hyphens), [1, 1, 0])
    with pytest.raises(RewardError, match="'red' names no number"):
        rewards_words.number(asked, ["1", "2", "3"])
    with pytest.raises(RewardError, match="'a cat\\?' is not known"):
        rewards_words.match([Asked("a cat?")], ["yes"])


def test_a_drawing_is_judged_by_answers_about_it():
    words = "a red circle and a blue square"
    asked = rewards_self.questions(words)
    assert ("what color is the circle?", "red") in asked and ("is there a cross?", "no") in asked
    assert ("how many circles are there?", "one") in asked
    right = dict(asked)
    seen = []

    def ask(pictures, questions):
        seen.extend(pictures)
        return [right[q] if p == "good" else "yes" for p, q in zip(pictures, questions)]

    reward = rewards_self.self_reward("self", ask)
    found = reward([Asked(words), Asked(words)], ["good", "bad"])
    assert (
        found[0] == 1 and found[1] == pytest.approx(2 / len(asked)) and len(seen) == 2 * len(asked)
    )
    assert rewards_self.questions("a dog")[0][1] == "yes"


def test_a_config_names_rewards_and_their_weights():
    assert rewards.parsed("shapes=1+self=0.5") == [("shapes", 1.0), ("self", 0.5)]
    assert rewards.parsed("http://host:80/x?a=b") == [("http://host:80/x?a=b", 1.0)]
    assert rewards.parsed("http://h/s?k=5") == [("http://h/s?k=5", 1.0)], "its query is no weight"
    assert rewards.parsed("http://h/s?k=5=0.5") == [("http://h/s?k=5", 0.5)]
    for text, told in (
        ("", "names no reward"), ("shapes+shapes", "one twice"), ("shapes=0", "above 0"),
        ("shapez", "no reward of drawing"), ("no.such:thing", "cannot be imported"),
    ):  # fmt: skip
        assert told in rewards.reward_problems("options.rewards", "drawing", text)[0]
    assert not rewards.reward_problems("options.rewards", "drawing", "shapes+operator:add=2")


def test_rewards_are_weighted_and_told_apart():
    found = scorer(lambda p, o: np.ones(len(o)), lambda p, o: np.arange(len(o)))(
        [PROMPT] * 3, "abc"
    )
    np.testing.assert_array_equal(found[""], [1, 3, 5])
    np.testing.assert_array_equal(found["r1"], [0, 1, 2])


def test_a_failure_is_no_zero():
    def raises(prompts, outputs):
        raise KeyError("no such model")

    told = []
    found = scorer(raises, lambda p, o: np.ones(len(o)), told=told)([PROMPT] * 2, "ab")
    assert np.isnan(found[""]).all() and "reward r0 failed for 2 outputs" in told[0]
    told = []
    found = scorer(lambda p, o: [1.0, float("nan")], told=told)([PROMPT] * 2, "ab")
    assert np.isnan(found[""]).tolist() == [False, True]
    assert "r0 gave no finite number for 1 of 2" in told[0]
    with pytest.raises(RewardError, match=r"r0 gave an array of shape \(1,\) for 2 outputs"):
        scorer(lambda p, o: [1.0])([PROMPT] * 2, "ab")


def test_a_reward_that_tells_nothing_apart_is_named():
    told = []
    watched = scorer(None, told=told)
    for step in range(rewards.PATIENCE):
        watched.watch(step + 1, {"r0": np.zeros((3, 4))})
    assert "reward r0 of drawing was always 0 for 20 steps up to step 20" in told[0]
    told.clear()
    for step in range(rewards.PATIENCE):
        watched.watch(step, {"r0": np.arange(3)[:, None] + np.zeros((3, 4))})
    assert len(told) == 1 and "was equal in every group" in told[0]
    watched.watch(0, {"r0": np.random.default_rng(0).random((3, 4))})
    assert watched.flat["r0"] == 0


def test_a_reward_that_fails_again_and_again_ends_the_run():
    watched = scorer(None)
    bad = {"r0": np.full((3, 4), np.nan)}
    for step in range(rewards.FAILED - 1):
        watched.watch(step, bad)
    with pytest.raises(RewardError, match="r0 has left no group of drawing whole in 5 steps"):
        watched.watch(5, bad)


class Server(http.server.BaseHTTPRequestHandler):
    """Replies as `plan` says, in turn; the last one again and again."""

    plan = []
    seen = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        does = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if does == "late":
            time.sleep(0.6)
        n = len(body["prompts"])
        rewards = {"short": [1.0], "null": [None] * n}.get(does, [i / 10 for i in range(n)])
        reply = b"{" if does == "broken" else json.dumps({"rewards": rewards}).encode()
        try:
            self.send_response(500 if does == "down" else 200)
            if does == "cut":  # more is announced than comes
                self.send_header("Content-Length", str(len(reply) + 9))
            self.end_headers()
            self.wfile.write(reply)
        except OSError:
            pass  # who asked has gone

    def log_message(self, *_):
        pass


@pytest.fixture
def served(monkeypatch):
    monkeypatch.setattr(rewards_http, "PAUSE", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    Server.seen.clear()

    def ask(plan, outputs, told=None, timeout=0.3):
        Server.plan = list(plan)
        url = f"http://127.0.0.1:{server.server_port}/score"
        say = (lambda text: None) if told is None else told.append
        return rewards_http.HttpReward(url, timeout, 1, say)([PROMPT] * len(outputs), outputs)

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_program_scores_over_http(served, monkeypatch):
    monkeypatch.setattr(rewards_http, "BATCH", 2)
    pictures = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(3)]
    np.testing.assert_allclose(served(["well"], pictures), [0, 0.1, 0], atol=1e-6)
    assert [len(body["pictures"]) for body in Server.seen] == [2, 1]
    assert Server.seen[0]["prompts"][0] == {"words": PROMPT.words, "answer": ""}
    served(["well"], ["red", "blue"])
    assert Server.seen[-1]["answers"] == ["red", "blue"]


@pytest.mark.parametrize("trouble", ["late", "down", "broken", "cut"])
def test_trouble_is_tried_again_and_then_left_out(served, trouble):
    np.testing.assert_allclose(served([trouble, "well"], ["a", "b"]), [0, 0.1], atol=1e-6)
    told = []
    assert np.isnan(served([trouble], ["a", "b"], told)).all()
    assert "gave nothing for 2 outputs in 2 requests" in told[0]


def test_a_reply_of_another_length_is_an_error_and_null_no_reward(served):
    with pytest.raises(RewardError, match="gave 1 numbers for 2 outputs"):
        served(["short"], ["a", "b"])
    assert np.isnan(served(["null"], ["a", "b"])).all()
