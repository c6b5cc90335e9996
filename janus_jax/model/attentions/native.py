"""Attention of a picture's tokens by the C++ of `model.cpu`, for models that decode: it has no
gradient."""

from janus_jax.model.cpu import attend_to_all as of_pictures

__all__ = ("of_pictures",)
