"""Files as the released models have them."""

import json

from janus_jax.weights.preprocessor import read_preprocessor


def preprocessor(folder, **changes) -> dict:
    """What is read of a folder's preprocessor_config.json, the published one with changes; None
    leaves a field out."""
    published = {
        "image_size": 384, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "min_size": 14,
        "rescale_factor": 0.00392156862745098, "do_normalize": True, "background_color": [127] * 3,
        "image_processor_type": "VLMImageProcessor",
    }  # fmt: skip
    fields = {name: x for name, x in (published | changes).items() if x is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return read_preprocessor(folder)
