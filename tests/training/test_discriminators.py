"""The discriminators against torch's, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import adversarial_oracle as theirs
from support.mesh import on_mesh
from support.outputs import nchw, nhwc, pictures, split

from janus_jax.model.keys import Keys
from janus_jax.training import discriminators
from janus_jax.weights.reader import flatten

SIDE = 16


def pair(kind: str):
    """(torch's module, our graphdef, our weights with the same numbers)."""
    torch.manual_seed(0)
    if kind == "patchgan":
        module = theirs.PatchGan(4, 2)
        for part in module.main:
            if isinstance(part, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(part.weight, 1, 0.3)
                torch.nn.init.normal_(part.bias, 0, 0.3)
    else:
        module = theirs.StyleGan(SIDE, 2)
    with on_mesh():
        ours = discriminators.build(kind, SIDE, {"patchgan": 4}.get(kind, 2), 2, Keys(jax.random.key(0)))
    graphdef, state = nnx.split(ours)
    weights = nnx.to_pure_dict(state)
    values = theirs.leaves_of(module)
    assert {name: x.shape for name, x in flatten(weights).items()} == {
        name: x.shape for name, x in values.items()
    }
    put = lambda path, _: jnp.asarray(values[".".join(str(key.key) for key in path)])
    return module.train(), graphdef, jax.tree.map_with_path(put, weights)


@pytest.mark.parametrize("kind", discriminators.KINDS)
def test_a_discriminator_gives_torchs_logits_gradients_and_running_statistics(kind, one_device):
    module, graphdef, weights = pair(kind)
    images = [pictures(seed, 3, SIDE, SIDE) for seed in range(3)]

    @jax.jit
    def judged(weights, image):
        def loss(weights, image):
            logits, statistics = nnx.merge(graphdef, weights)(image)
            return (logits**2).mean(), (logits, statistics)

        return jax.grad(loss, (0, 1), has_aux=True)(weights, image)

    seen = []
    for image in images:
        x = nchw(image).requires_grad_(True)
        logits = module(x)
        (grads, of_image), (got, statistics) = judged(weights, *split(image))
        seen.append(statistics)
        want = nhwc(logits.detach()) if kind == "patchgan" else logits.detach().numpy()
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    module.zero_grad()
    (logits**2).mean().backward()
    of_theirs = dict(theirs.as_ours(name, p.grad) for name, p in module.named_parameters())
    grads = flatten(grads)
    for name, want in {**of_theirs, "image": nhwc(x.grad)}.items():
        got = grads.get(name, of_image)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), err_msg=name)
    running = flatten(discriminators.remembered(weights, *seen))
    for name, want in theirs.leaves_of(module).items():
        np.testing.assert_allclose(running[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "kind, side, layers, said",
    [
        ("patchgan", 256, 3, ""),
        ("patchgan", 16, 3, "after which 2 of 16 pixels are left of a side"),
        ("stylegan", 256, 3, ""),
        ("stylegan", 384, 3, "take a power of 2"),
    ],
)
def test_pictures_that_a_discriminator_cannot_judge_are_told(kind, side, layers, said):
    found = discriminators.size_problem(kind, side, layers)
    assert (said in found) if said else found == ""


def test_llamagens_sizes_are_the_defaults():
    """Parameters of its two discriminators at 256 pixels: a state dict's, running ones apart."""
    with on_mesh():
        count = lambda kind: sum(
            x.size
            for x in jax.tree.leaves(
                jax.eval_shape(lambda: nnx.state(discriminators.build(kind, 256, 64, 3, Keys(jax.random.key(0)))))
            )
        )  # fmt: skip
        patch, style = map(count, discriminators.KINDS)
    running = 2 * (128 + 256 + 512)
    assert patch - running == sum(p.numel() for p in theirs.PatchGan(64, 3).parameters())
    assert style == sum(p.numel() for p in theirs.StyleGan(256, 64).parameters())
