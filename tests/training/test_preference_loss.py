"""DPO, IPO and SimPO as their papers write them, in numpy by hand."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mesh import on_mesh

from janus_jax.distributed import arrays
from janus_jax.model import batch as bt
from janus_jax.training import preference_loss as pl

OPTIONS = {
    "dpo": pl.OPTIONS | {"beta": 0.1},
    "ipo": pl.OPTIONS | {"loss": "ipo", "beta": 0.2},
    "simpo": pl.OPTIONS | {"loss": "simpo", "beta": 2.0, "gamma": 0.7},
}


def numbers(seed: int = 0):
    """(policy, reference, tokens) of 40 pairs, float64 [40, 2]."""
    rng = np.random.default_rng(seed)
    reference = -20 * rng.random((40, 2))
    return reference + 8 * rng.normal(size=(40, 2)), reference, rng.integers(1, 30, (40, 2))


def by_hand(policy, reference, tokens, options):
    """(losses [n], their derivatives by the policy's log-probabilities [n, 2])."""
    beta = options["beta"]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    if options["loss"] == "simpo":
        means = policy / tokens
        x = beta * (means[:, 0] - means[:, 1]) - options["gamma"]
        by_x = -sigmoid(-x)
        return -np.log(sigmoid(x)), by_x[:, None] * beta * np.array([1, -1]) / tokens
    ratio = policy - reference
    h = ratio[:, 0] - ratio[:, 1]
    if options["loss"] == "ipo":
        by_h = 2 * (h - 1 / (2 * beta))
        return (h - 1 / (2 * beta)) ** 2, by_h[:, None] * np.array([1, -1])
    return -np.log(sigmoid(beta * h)), -beta * sigmoid(-beta * h)[:, None] * np.array([1, -1])


@pytest.mark.parametrize("loss", pl.LOSSES)
def test_losses_and_their_gradients_are_the_papers(loss):
    given = numbers()
    want, by_policy = by_hand(*given, OPTIONS[loss])
    policy, reference, tokens = (jnp.asarray(x, jnp.float32) for x in given)

    def total(policy):
        losses, _ = pl.preference_losses(policy, reference, tokens, OPTIONS[loss])
        return losses.sum(), losses

    grad, got = jax.jit(jax.grad(total, has_aux=True))(policy)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad, by_policy, rtol=1e-5, atol=1e-5)
    assert np.ptp(want) > 0.5


@pytest.mark.slow
def test_the_loss_of_dpo_and_its_gradient_are_those_that_trl_computes():
    trl = pytest.importorskip("trl", reason="trl, which is no dependency")
    import torch

    policy, reference, tokens = numbers()
    there = np.arange(30) < tokens.T.reshape(-1, 1)  # [chosen, rejected] one after the other
    each = np.where(there, (policy / tokens).T.reshape(-1, 1), 0)  # a token's share of the sum
    each = torch.tensor(each, requires_grad=True)
    mask = torch.tensor(np.pad(there, ((0, 0), (1, 0)))).long()
    zero, same = torch.zeros_like(each), lambda x: x
    said = mock.MagicMock(
        log_probs=each, entropy=zero, mean_logits=zero, is_top1=zero > 0, aux_loss=None
    )
    trainer = mock.MagicMock(
        beta=0.1, loss_types=["sigmoid"], loss_weights=[1.0], f_divergence_type="reverse_kl",
        ld_alpha=None, precompute_ref_logps=True, use_weighting=False, aux_loss_enabled=False,
        accelerator=mock.MagicMock(gather=same, gather_for_metrics=same), _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    inputs = {
        "input_ids": mask, "attention_mask": mask + 1, "completion_mask": mask,
        "ref_chosen_logps": torch.tensor(reference[:, 0]),
        "ref_rejected_logps": torch.tensor(reference[:, 1]),
    }  # fmt: skip
    want = trl.DPOTrainer._compute_loss(trainer, lambda **how: said, inputs, False)
    want.backward()
    of = lambda policy: pl.preference_losses(policy, reference, tokens, OPTIONS["dpo"])[0].mean()
    loss, gradient = jax.jit(jax.value_and_grad(of))(jnp.asarray(policy, jnp.float32))
    assert float(loss) == pytest.approx(want.item(), abs=1e-5)
    by_half = each.grad.numpy()[:, 0].reshape(2, -1).T  # of each half's first token, as of its sum
    np.testing.assert_allclose(gradient, by_half, rtol=1e-5, atol=1e-6)


def test_a_policy_that_is_its_reference_has_the_loss_of_no_preference():
    policy, _, tokens = (jnp.asarray(x, jnp.float32) for x in numbers())
    for loss, want in ("dpo", np.log(2)), ("ipo", 1 / (4 * 0.2**2)):
        got, rewards = pl.preference_losses(policy, policy, tokens, OPTIONS[loss])
        np.testing.assert_allclose(got, want, rtol=1e-6)
        assert not np.asarray(rewards).any()


def batch() -> dict:
    """Two rows: a pair of pictures (3 and 3 ids) and one of answers (2 and 1 tokens); one of texts
    (1 and 2), then padding. Token t is predicted where its number is above 0."""
    rows = [
        [(1, 3, "image", 3), (2, 3, "image", 3), (3, 3, "text", 1), (4, 2, "text", 1)],
        [(1, 2, "text", 2), (2, 3, "text", 2), (0, 6, "", 0)],
    ]
    names = "text_targets", "image_targets", "segment_ids", "positions", "tasks"
    out = {name: np.zeros((2, 15), np.int32) for name in names}
    out["text_targets"] -= 1
    for r, segments in enumerate(rows):
        at = 0
        for number, count, what, code in segments:
            n = count + 1 if number else count
            here = slice(at, at + n)
            out["segment_ids"][r, here] = number
            out["tasks"][r, here] = code
            out["positions"][r, here] = np.arange(n)
            if what:
                targets = "image_targets" if what == "image" else "text_targets"
                out[targets][r, at : at + count] = 7
            at += n
    return out


@pytest.mark.parametrize("accumulate", [1, 2])
def test_means_are_over_pairs_of_each_kind_and_parts_add_up(accumulate):
    given = batch()
    rng = np.random.default_rng(1)
    policy, reference = (-10 * rng.random((2, 3, 2)) for _ in range(2))
    reference[1, 1:] = policy[1, 1:] = policy[0, 2:] = reference[0, 2:] = 0
    options = OPTIONS["dpo"] | {"sft": 0.5}
    with on_mesh():
        put = lambda x: arrays.put_batch({"x": np.asarray(x, np.float32)})["x"]
        counted = pl.pair_counts(arrays.put_batch(given), 3)
        assert {kind: float(n) for kind, n in counted["pairs"].items()} == dict.fromkeys(
            bt.TASKS, 1
        )
        assert {kind: float(n) for kind, n in counted["tokens"].items()} == {
            "understanding": 5, "text": 5, "generation": 6,
        }  # fmt: skip
        found = [0.0, {}]
        for rows in np.split(np.arange(2), accumulate):
            part = arrays.put_batch({name: x[rows] for name, x in given.items()})
            loss, metrics = pl.preference_loss(
                put(policy[rows]), put(reference[rows]), part, counted, options
            )
            found[0] += float(loss)
            found[1] = {name: found[1].get(name, 0) + float(x) for name, x in metrics.items()}
    pairs = {"generation": (0, 0), "understanding": (0, 1), "text": (1, 0)}
    flat = {kind: (policy[at], reference[at]) for kind, at in pairs.items()}
    each = {k: by_hand(p[None], r[None], np.ones(2), options)[0][0] for k, (p, r) in flat.items()}
    margins = {k: 0.1 * ((p - r)[0] - (p - r)[1]) for k, (p, r) in flat.items()}
    sft = -sum(p[0] for p, _ in flat.values()) / (3 + 3 + 2)
    loss, metrics = found
    assert loss == pytest.approx(np.mean(list(each.values())) + 0.5 * sft, rel=1e-5)
    assert metrics["sft_loss"] == pytest.approx(sft, rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(np.mean([m > 0 for m in margins.values()]))
    assert metrics["supervised_tokens"] == 16
    for kind, (p, _) in flat.items():
        assert metrics[f"{kind}_loss"] == pytest.approx(each[kind], rel=1e-5)
        assert metrics[f"{kind}_margin"] == pytest.approx(margins[kind], rel=1e-4)
        assert metrics[f"{kind}_accuracy"] == float(margins[kind] > 0)
        assert metrics[f"{kind}_logp_chosen"] == pytest.approx(p[0], rel=1e-5)
        assert metrics[f"{kind}_logp_rejected"] == pytest.approx(p[1], rel=1e-5)
