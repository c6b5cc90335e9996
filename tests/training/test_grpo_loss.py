"""The loss of GRPO and its gradient against the papers' sums, written out example by example."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from janus_jax.training import grpo_loss

GROUPS, G, T = 3, 4, 9
LOW, HIGH, KL = 0.2, 0.28, 0.05


def made():
    """(rewards [groups, G], lengths [n], log-probabilities now, old, reference [n, T])."""
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 3, (GROUPS, G)).astype(np.float32)
    rewards[1] = 1.0  # a group that teaches nothing
    lengths = rng.integers(1, T + 1, GROUPS * G)
    now, old, reference = rng.normal(-1.5, 0.4, (3, GROUPS * G, T)).astype(np.float32)
    return rewards, lengths, now, old, reference


def oracle(average: str, scale: str, kl: float):
    """(loss, its gradient by now) as the papers write it: torch, one token after the other."""
    rewards, lengths, now, old, reference = made()
    now = torch.tensor(now, dtype=torch.float64, requires_grad=True)
    total = 0.0
    for i, n in enumerate(lengths):
        group = torch.tensor(rewards[i // G], dtype=torch.float64)
        a = group[i % G] - group.mean()
        if scale == "deviation" and group.max() > group.min():
            a = a / (group.std(correction=0) + 1e-6)
        per_token = []
        for t in range(n):
            ratio = torch.exp(now[i, t] - float(old[i, t]))
            worst = torch.minimum(ratio * a, torch.clamp(ratio, 1 - LOW, 1 + HIGH) * a)
            d = float(reference[i, t]) - now[i, t]
            per_token.append(-worst + kl * (torch.exp(d) - d - 1))
        own = torch.stack(per_token).sum()
        count = {"example": len(lengths) * n, "token": lengths.sum(), "length": len(lengths) * T}
        total = total + own / float(count[average])
    total.backward()
    return total.item(), now.grad.numpy()


def batch_of(average: str, scale: str) -> dict:
    rewards, lengths, _, old, reference = made()
    there = np.arange(T) < lengths[:, None]
    each = grpo_loss.token_weights(lengths, np.full(len(lengths), T), average)
    a = grpo_loss.advantages(rewards, scale).reshape(-1, 1)
    return {
        "old": old,
        "reference": reference,
        "weights": np.where(there, each[:, None], 0).astype(np.float32),
        "advantages": np.where(there, a, 0).astype(np.float32),
        "shares": np.where(there, 1 / there.sum(), 0).astype(np.float32),
        "image_targets": there.astype(np.int32),
    }


@pytest.mark.parametrize("kl", [0.0, KL])
@pytest.mark.parametrize("scale", grpo_loss.SCALES)
@pytest.mark.parametrize("average", grpo_loss.AVERAGES)
def test_loss_and_gradient_are_those_of_the_papers(average, scale, kl):
    batch = batch_of(average, scale)
    now = made()[2]
    of = lambda now: grpo_loss.grpo_loss(now, batch, LOW, HIGH, kl)
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(of, has_aux=True))(now)
    want, by_now = oracle(average, scale, kl)
    assert abs(want) > 1e-3 and np.abs(by_now).max() > 1e-3
    assert float(loss) == pytest.approx(want, abs=1e-5)
    np.testing.assert_allclose(gradient, by_now, rtol=1e-5, atol=1e-6)
    assert 0 < float(metrics["clipped_drawing"]) < 1 and float(metrics["entropy_answering"]) == 0
    there = batch["weights"] > 0
    assert float(metrics["entropy_drawing"]) == pytest.approx(-batch["old"][there].mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "average, theirs", [("example", "grpo"), ("token", "bnpo"), ("length", "dr_grpo")]
)
def test_loss_and_gradient_are_those_that_trl_computes(average, theirs):
    trl = pytest.importorskip("trl", reason="trl, which is no dependency")
    rewards, lengths, now, old, reference = made()
    policy = torch.tensor(now, requires_grad=True)
    same = lambda x, reduction=None: x
    trainer = mock.MagicMock(
        loss_type=theirs, beta=KL, epsilon_low=LOW, epsilon_high=HIGH, max_completion_length=T,
        importance_sampling_level="token", top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        current_gradient_accumulation_steps=1, use_vllm=False, _entropy_bonus_enabled=False,
        aux_loss_enabled=False, args=mock.MagicMock(delta=None, use_bias_correction_kl=False),
        accelerator=mock.MagicMock(gather=same, reduce=same),
        _get_per_token_logps_and_entropies=lambda *a, **k: (policy, torch.zeros_like(policy), None),
    )  # fmt: skip
    ids = torch.zeros(now.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids,
        "completion_mask": torch.tensor(np.arange(T) < lengths[:, None]).long(),
        "advantages": torch.tensor(grpo_loss.advantages(rewards).reshape(-1)),
        "old_per_token_logps": torch.tensor(old), "ref_per_token_logps": torch.tensor(reference),
    }  # fmt: skip
    want = trl.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    want.backward()
    batch = batch_of(average, "deviation")
    of = lambda now: grpo_loss.grpo_loss(now, batch, LOW, HIGH, KL)[0]
    loss, gradient = jax.jit(jax.value_and_grad(of))(now)
    assert abs(want.item()) > 1e-3
    assert float(loss) == pytest.approx(want.item(), abs=1e-5)
    np.testing.assert_allclose(gradient, policy.grad, rtol=1e-5, atol=1e-6)


def test_parts_of_a_step_add_up_to_its_loss():
    batch = batch_of("token", "deviation")
    now = made()[2]
    of = jax.jit(lambda now, batch: grpo_loss.grpo_loss(now, batch, LOW, HIGH, KL))
    whole, metrics = of(now, batch)
    halves = slice(0, 6), slice(6, None)
    parts = [of(now[rows], {n: x[rows] for n, x in batch.items()}) for rows in halves]
    assert float(sum(loss for loss, _ in parts)) == pytest.approx(float(whole), rel=1e-5)
    for name, value in metrics.items():
        assert float(sum(m[name] for _, m in parts)) == pytest.approx(float(value), abs=1e-6), name


def test_a_group_of_equal_rewards_teaches_nothing_and_others_add_up_to_0():
    found = grpo_loss.advantages(np.array([[1, 1, 1], [0, 1, 0], [3, 3.5, 4]], np.float32))
    assert not found[0].any()
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(found[1], [-(0.5**0.5), 2**0.5, -(0.5**0.5)], rtol=1e-4)
    plain = grpo_loss.advantages(np.array([[0, 1, 0]], np.float32), "none")
    np.testing.assert_allclose(plain, [[-1 / 3, 2 / 3, -1 / 3]], rtol=1e-6)


def test_what_failed_counts_nowhere():
    lengths = np.array([4, 0, 2])
    for average, want in (
        ("example", [1 / 8, 0, 1 / 4]), ("token", [1 / 6, 0, 1 / 6]), ("length", [1 / 16, 0, 1 / 16])
    ):  # fmt: skip
        found = grpo_loss.token_weights(lengths, np.full(3, 8), average)
        np.testing.assert_allclose(found, want, rtol=1e-6)


def test_the_divergence_is_never_negative_and_has_no_bias():
    rng = np.random.default_rng(1)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    drawn = rng.choice(3, 200_000, p=p)
    found = np.asarray(grpo_loss.k3(jnp.log(p)[drawn], jnp.log(q)[drawn]))
    assert found.min() >= 0
    assert found.mean() == pytest.approx((p * np.log(p / q)).sum(), rel=0.02)
