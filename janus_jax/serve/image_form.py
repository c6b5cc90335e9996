"""The bodies of /v1/images/generations and /v1/images/edits (platform.openai.com/docs/api-reference/
images, as the package `openai` types them), with the extensions `seed`, `guidance_scale`,
`temperature` and, where no picture is given, `negative_prompt`.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from janus_jax.serve.errors import told
from janus_jax.serve.forms import Count, Form, Scale, Seed, Size, Temperature, unread

MOST_PARTIAL = 24


def _square(value, info: ValidationInfo):
    size = info.context.size
    if value not in (None, "auto", size):
        of = " of pictures that it edits" if info.context.sizes else ""
        raise ValueError(f"is {told(value)}: this model draws {size}{of}; give it, or leave it out")
    return value


class ImageRequest(Form):
    """Pictures for a prompt."""

    prompt: str
    model: str | None = None
    n: Count = None
    size: Size = None
    seed: Seed = None
    guidance_scale: Scale = None
    temperature: Temperature = None
    negative_prompt: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=MOST_PARTIAL)] | None = None
    # Marks for the caller's own books.
    user: str | None = None
    safety_identifier: str | None = None

    response_format: unread("no pictures are kept for an address to name", "b64_json") = None
    output_format: unread("pictures are PNG files", "png") = None
    output_compression: unread("PNG files lose nothing", 100) = None
    background: unread("pictures are opaque", "auto", "opaque") = None
    quality: unread("there is one quality", "auto", "standard") = None
    style: unread("say it in the prompt") = None
    moderation: unread("nothing is moderated") = None
    complexity: unread("pictures are pixels") = None
    svg: unread("pictures are pixels") = None
    frame_count: unread("one picture is drawn") = None
    frame_duration_ms: unread("one picture is drawn") = None

    @model_validator(mode="after")
    def _partial_needs_stream(self):
        if self.partial_images and not self.stream:
            raise ValueError("partial_images without stream; set stream to true, or leave it out")
        return self


class EditRequest(Form):
    """What to do with pictures, which come as files. The text fields of a form, read as numbers where
    they are such."""

    prompt: str
    model: str | None = None
    n: Count = None
    size: Annotated[str | None, AfterValidator(_square)] = None
    seed: Seed = None
    guidance_scale: Scale = None
    temperature: Temperature = None
    user: str | None = None

    negative_prompt: unread("guidance leads away from the picture as it is") = None
    stream: unread("an edit is told when it is done", "false") = None
    partial_images: unread("an edit is told when it is done", "0") = None
    response_format: unread("no pictures are kept for an address to name", "b64_json") = None
    output_format: unread("pictures are PNG files", "png") = None
    output_compression: unread("PNG files lose nothing", "100") = None
    background: unread("pictures are opaque", "auto", "opaque") = None
    quality: unread("there is one quality", "auto", "standard") = None
    input_fidelity: unread("pictures are always given whole", "low", "high") = None
    moderation: unread("nothing is moderated") = None
