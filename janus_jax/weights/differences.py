"""What of a file of an understanding encoder a model takes, and what of the encoder is written down.

A file has all layers and the final norm; a model takes the output of one of its layers
(`UnderstandingEncoderConfig.feature_layer`), with that norm or without it. SigLIP's config says what
it said before there were others.
"""

from janus_jax.model.config import DIFFERENCES, JanusConfig, UnderstandingEncoderConfig, to_dict
from janus_jax.weights.table import fields

ENCODER = "understanding_encoder"
ADAPTOR = "understanding_adaptor.fc1.kernel"
SEEN = "the understanding adaptor's input (of an encoder: width * pixel_shuffle^2)"


def taken(
    layers: int | None, found: dict[str, tuple], wanted: dict[str, tuple]
) -> dict[str, tuple]:
    """The leaves found in a file of an encoder, without the last layers and the final norm where the
    model has no place for them.

    layers: `Layout.layers`; None leaves all as it is.
    found, wanted: path -> shape.
    """
    if layers is None:
        return found
    norms = f"{ENCODER}.norm."
    out = {k: x for k, x in found.items() if k in wanted or not k.startswith(norms)}
    for name, shape in out.items():
        fewer = wanted.get(name, shape)
        if name.startswith(f"{ENCODER}.blocks.") and fewer[1:] == shape[1:]:
            out[name] = (min(shape[0], fewer[0]), *shape[1:])
    return out


def other_depth(layers: int | None, config: JanusConfig) -> list[str]:
    """How a file of an encoder has other layers than the config says."""
    here = config.understanding_encoder.layers
    there = layers or here
    return [] if there == here else [f"{ENCODER}.layers is {there} there, {here} here"]


def written_config(config: JanusConfig) -> dict:
    """The config as this project writes it beside weights: of an understanding encoder's DIFFERENCES
    those that it has, so that SigLIP's says what it always said."""
    values = to_dict(config)
    plain = vars(UnderstandingEncoderConfig())
    encoder = values[ENCODER].items()
    values[ENCODER] = {k: x for k, x in encoder if k not in DIFFERENCES or x != plain[k]}
    return values


def written_unshaped(unshaped: dict) -> dict:
    """The sizes that no shape tells, as they are written beside a part: likewise."""
    plain = {f"{ENCODER}.{x}": getattr(UnderstandingEncoderConfig, x) for x in DIFFERENCES}
    return {key: x for key, x in unshaped.items() if key not in plain or x != plain[key]}


def others(config: JanusConfig) -> list[str]:
    """Why only this project's own layout has a place for such an encoder."""
    encoder = config.understanding_encoder
    return [
        f"{ENCODER}.{field} is {getattr(encoder, field)!r}: other programs' Janus has SigLIP's "
        f"{getattr(UnderstandingEncoderConfig, field)!r} alone; keep it in this project's layout"
        for field in DIFFERENCES
        if getattr(encoder, field) != getattr(UnderstandingEncoderConfig, field)
    ]


def differing(source: dict[str, tuple], model: dict[str, tuple]) -> list[str]:
    """The sizes in which two sets of leaves' shapes differ, in words."""
    a = fields(source)
    b = fields(model)
    found = [(key, a[key], b[key]) for key in a if key in b and a[key] != b[key]]
    read = [shapes[ADAPTOR][0] for shapes in (source, model) if ADAPTOR in shapes]
    found += [(SEEN, *read)] if len(set(read)) == 2 else []
    return [f"{key} is {there} there, {here} here" for key, there, here in found]
