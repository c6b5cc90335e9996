"""What other harnesses send to a server in OpenAI's forms, and the harnesses themselves where they are
installed (CONTRIBUTING.md): 20 questions of the shapes world.
"""

import base64
import io

import pytest
from PIL import Image
from support import lmms_tasks
from support.harnesses import harness
from support.servers import ask

from janus_jax.data.toy import shapes
from janus_jax.sample.understand import understand

QUESTIONS = shapes.evaluation_questions(1, 1000)


def uri(picture, kind: str) -> str:
    Image.fromarray(picture).save(file := io.BytesIO(), kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def test_what_lmms_eval_and_vlmevalkit_send_is_answered_as_understand_does(server, loaded):
    _, picture, question, _ = QUESTIONS[0]
    words = {"type": "text", "text": question}
    png = {"type": "image_url", "image_url": {"url": uri(picture, "PNG")}}
    jpeg = {"type": "image_url", "image_url": {"url": uri(picture, "JPEG"), "detail": "low"}}
    system = {"role": "system", "content": "Answer with one word."}
    shared = {"model": "quickstart", "temperature": 0}
    sent = [
        # lmms_eval 0.7.3, models/chat/openai.py, with pope_random.yaml's generation_kwargs
        {"messages": [{"role": "user", "content": [png, words]}], "max_tokens": 16, "top_p": 0},
        # ms-vlmeval 0.0.20, api/gpt.py and api/lmdeploy.py
        {"messages": [system, {"role": "user", "content": [jpeg, words]}], "max_tokens": 2048},
        {"messages": [{"role": "user", "content": [jpeg, words]}], "max_tokens": 64, "n": 1},
        {"messages": [system, {"role": "user", "content": question}], "max_tokens": 64, "n": 1},
    ]
    for body in sent:
        reply = ask(server, shared | body)
        assert reply.status_code == 200, reply.text
        said = reply.json()["choices"][0]["message"]["content"]
        assert said == understand(*loaded, body["messages"], max_new_tokens=body["max_tokens"])


def test_top_p_0_keeps_the_likeliest_token_alone(server, loaded):
    _, picture, question, _ = QUESTIONS[0]
    part = {"type": "image_url", "image_url": {"url": uri(picture, "PNG")}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
    hot = {"messages": messages, "temperature": 50, "max_tokens": 12}
    said = [
        ask(server, hot | {"top_p": mass, "seed": seed}).json()["choices"][0]["message"]["content"]
        for mass, seed in ((0, 0), (0, 1), (0, 2), (1, 1))
    ]
    greedy = understand(*loaded, messages, max_new_tokens=12)
    assert said[:3] == [greedy] * 3 and said[3] != greedy


@pytest.mark.slow
def test_lmms_eval_asks_a_server_and_scores(server, loaded, tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (CONTRIBUTING.md)")
    import datasets
    from lmms_eval import evaluator, tasks

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lmms_tasks.make(tmp_path / "tasks", per_answer=1, per_task=1)
    found = evaluator.simple_evaluate(
        model="openai", model_args=f"base_url={server}/v1,model=quickstart,api_key=none,num_concurrent=8",
        tasks=["shapes_answers"], batch_size=1, log_samples=True,
        task_manager=tasks.TaskManager(include_path=str(tmp_path / "tasks"), model_name="openai"),
    )  # fmt: skip
    said = {x["doc_id"]: x["resps"][0][0] for x in found["samples"]["shapes_answers"]}
    assert len(said) == len(QUESTIONS) == 20
    for i, (_, picture, question, _) in enumerate(QUESTIONS):
        parts = [
            {"type": "image", "image": Image.fromarray(picture)},
            {"type": "text", "text": question},
        ]
        chat = [{"role": "user", "content": parts}]
        assert getattr(said[i], "text", said[i]) == understand(*loaded, chat, max_new_tokens=8)
    right = sum(
        answer == getattr(said[i], "text", said[i]) for i, (*_, answer) in enumerate(QUESTIONS)
    )
    score = found["results"]["shapes_answers"]["exact_match,none"]
    assert score == pytest.approx(right / 20) and right > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt.GPT4V", "lmdeploy.LMDeployAPI"])
def test_vlmevalkit_asks_a_server(server, loaded, tmp_path, name):
    module, name = name.split(".")
    wrapper = getattr(harness(f"vlmeval.api.{module}"), name)(
        model="quickstart", api_base=f"{server}/v1/chat/completions", key="none", retry=1,
        max_tokens=64, system_prompt="Answer with one word.",
    )  # fmt: skip
    for i, (_, picture, question, _) in enumerate(QUESTIONS):
        path = tmp_path / f"{i}.png"
        Image.fromarray(picture).save(path)
        asked = [{"type": "image", "value": str(path)}, {"type": "text", "value": question}]
        given = (wrapper.system_prompt,) if name == "LMDeployAPI" else ()
        sent = wrapper.prepare_inputs(asked, *given)
        assert wrapper.generate(asked) == understand(*loaded, sent, max_new_tokens=64).strip()
