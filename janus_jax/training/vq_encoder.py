"""The encoding half of a VQ tokenizer alone, on all devices of a process."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from janus_jax.common.text import listed
from janus_jax.data import image_ids
from janus_jax.distributed import arrays
from janus_jax.model import sharding as sh
from janus_jax.model.batch import pixels
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import GenerationEncoder, tokenizer
from janus_jax.model.keys import Keys
from janus_jax.weights.load import placed
from janus_jax.weights.reader import flatten, misfits
from janus_jax.weights.source import open_source
from janus_jax.weights.table import VQ, by_direction, tokenizer_kind

COMPARED = 4  # pictures
# Mean distance of unit latents from which a tokenizer does not compute in float32, by which they are
# 1e-6 apart; by TensorFloat-32 1e-3, by bfloat16 8e-3. Single ids differ also where two codes are
# equally near, so they are judged by their share.
ROUNDED = 1e-4
EQUAL = 0.99
SMALL = GenerationEncoderConfig(
    image_size=32, channels=32, multipliers=(1, 2), res_blocks=1, z_channels=32, codebook_size=1024
)


class TokenizerEncoder:
    """The encoding half of a VQ tokenizer, whole on every device of `mesh`, by default all of this
    process.

    config: its sizes, None for what the weights say (LlamaGen's: 384 pixels). Raises ValueError for
        weights that hold no such tokenizer.
    """

    def __init__(
        self,
        weights,
        config: GenerationEncoderConfig | None = None,
        allow_pickle: bool = False,
        mesh=None,
    ):
        source = open_source(weights, allow_pickle=allow_pickle).require()
        whole = source.config.generation_encoder if source.config else GenerationEncoderConfig()
        self.config = config or whole
        if self.config.depth > 1:
            raise ValueError(
                f"{source.path}: generation_encoder.depth is {self.config.depth}: ids are stored one a "
                "token; train from pictures, which are encoded as they are read"
            )
        if self.config.scales or f"{VQ}.phi.0.kernel" in source.leaves:
            raise ValueError(
                f"{source.path}: generation_encoder.scales: a tokenizer of several scales gives other ids "
                "than those of one grid, which alone are stored; train from pictures, which are encoded as "
                "they are read"
            )
        self.mesh = mesh or sh.make_mesh(1, -1, 1, jax.local_devices())
        # Only around what this process does alone: what crosses processes wants no mesh of one.
        with sh.mesh_context(self.mesh):
            module = jax.eval_shape(lambda: tokenizer(self.config, Keys(jax.random.key(0))))
            del module.decoder, module.post_quant_conv
            graphdef, state = nnx.split(module)
            shapes = sh.concrete(nnx.to_pure_dict(state))
            require_tokenizer(
                source,
                {f"{VQ}.{name}": x.shape for name, x in flatten(shapes).items()},
                self.config,
            )
            self.params = placed(source, shapes, f"{VQ}.")
        source.raise_if_damaged()
        self._encode = encoding(graphdef)

    @functools.cached_property
    def fingerprint(self) -> str:
        return image_ids.tokenizer_fingerprint(flatten(self.params))

    def __call__(self, pictures: np.ndarray) -> jax.Array:
        """uint8 [B, S, S, 3] -> int32 [B, N], perhaps still being computed. The devices must divide
        B."""
        return on_mesh(self.mesh, self._encode, self.params, pictures)[0]

    def beside(self, device, pictures: np.ndarray) -> "Agreement":
        """How these devices encode beside another one, which encodes the first few pictures;
        pictures as for a call."""
        here = on_mesh(self.mesh, self._encode, self.params, pictures)
        return agreement(here, on_device(device, self._encode, self.params, pictures[:COMPARED]))


def encoding(graphdef):
    """Jitted: (params, uint8 [B, S, S, 3]) -> ids int32 [B, N] and unit latents [B, h, w, C]."""

    def encode(params, pictures):
        module = nnx.merge(graphdef, params)
        z = module.latents(pixels(pictures))
        return module.nearest(z).reshape(len(z), -1), z

    return jax.jit(encode)


def on_mesh(mesh, encode, params, pictures):
    """`encode` of pictures that are split over a mesh on which `params` are whole."""
    with sh.mesh_context(mesh):
        return encode(params, arrays.put(pictures, jax.NamedSharding(mesh, sh.BATCH)))


def on_device(device, encode, params, pictures):
    """`encode` on one device of this process, wherever `params` are."""
    mesh = sh.make_mesh(1, 1, 1, [device])
    whole = jax.NamedSharding(mesh, sh.REPLICATED)
    return on_mesh(mesh, encode, jax.device_put(jax.device_get(params), whole), pictures)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of what two devices make of the same pictures.

    equal: how many ids are.
    ids: how many there are.
    apart: mean distance of the unit latents.
    """

    equal: int
    ids: int
    apart: float

    @property
    def rounded(self) -> bool:
        """Whether one of them does not compute in float32."""
        return not self.apart < ROUNDED or self.equal < EQUAL * self.ids

    def __str__(self) -> str:
        return (
            f"{self.equal:,} of {self.ids:,} ids equal the CPU's ({self.equal / self.ids:.2%}), "
            f"latents are {self.apart:.1g} apart"
        )


def agreement(here, there) -> Agreement:
    """here, there: ids and latents of `encoding`; `there` may have fewer pictures."""
    ids, z = (np.asarray(x) for x in there)
    other, z_other = (np.asarray(x)[: len(ids)] for x in here)
    apart = np.linalg.norm(z - z_other, axis=-1).mean()
    return Agreement(int((ids == other).sum()), ids.size, float(apart))


def cpu_beside(device):
    """The CPU as a device beside an accelerator's; None where `device` is one, or JAX_PLATFORMS
    leaves the CPU out."""
    if device.platform == "cpu":
        return None
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def warn_of_rounding(say, device=None, other=None):
    """Tells `say` where this process's accelerator encodes otherwise than its CPU: ids that are
    computed in each step would be those of this platform alone. A small random tokenizer shows it.

    device, other: the accelerator and the CPU, by default those that are there.
    """
    device = device or jax.local_devices()[0]
    other = other or cpu_beside(device)
    if other is None:
        return
    with sh.mesh_context(sh.make_mesh(1, 1, 1, [other])):
        graphdef, state = nnx.split(GenerationEncoder(SMALL, nnx.Rngs(0)))
    encode = encoding(graphdef)
    side = SMALL.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (COMPARED, side, side, 3), np.uint8)
    run = lambda device: on_device(device, encode, nnx.to_pure_dict(state), pictures)
    found = agreement(run(device), run(other))
    if found.rounded:
        say(f"WARNING: {not_float32(device, found)}")


def not_float32(device, found: Agreement) -> str:
    return (
        f"the VQ tokenizer does not compute in float32 on {device.device_kind}: {found}; "
        f"at least {EQUAL:.0%} and less than {ROUNDED:g} are due. The ids would be those of this "
        f"platform alone. Compute them on a CPU (JAX_PLATFORMS=cpu janus-jax data tokenize ...) "
        f"and please report this"
    )


def require_tokenizer(source, wanted: dict[str, tuple], config: GenerationEncoderConfig):
    """Raises ValueError unless the source has these leaves and computes with them as `config`
    says."""
    found = {name: shape for name, (shape, _) in source.leaves.items() if name.startswith(f"{VQ}.")}
    if not found:
        raise ValueError(
            f"{source.path}: holds no VQ tokenizer (generation_encoder), it is {source.kind}; give what "
            "a stage of task vq or semantic hands on, or a Janus"
        )
    if config.latent == "kl" or tokenizer_kind(found) == "kl":
        raise ValueError(
            f"{source.path}: generation_encoder.latent is {tokenizer_kind(found)!r} there, "
            f"{config.latent!r} here; a KL tokenizer gives latents and no ids to store or to compare: "
            "take a VQ tokenizer, and train a KL one from pictures"
        )
    problems = misfits(found, wanted, whole=False)
    if (depth := source.unshaped.get(f"{VQ}.depth", 1)) != config.depth:
        problems.append(f"depth is {depth} there, {config.depth} here")
    groups = source.unshaped.get(f"{VQ}.norm_groups", config.norm_groups)
    if groups != config.norm_groups:
        problems.append(f"norm_groups is {groups} there, {config.norm_groups} here")
    if by_direction(source.unshaped) != config.codebook_l2_norm:
        problems.append(
            f"codebook_l2_norm is {not config.codebook_l2_norm} there, {config.codebook_l2_norm} here"
        )
    if problems:
        raise ValueError(
            f"{source.path}: its VQ tokenizer has other sizes than the model; name the --config "
            f"whose model it is:{listed(problems)}"
        )
