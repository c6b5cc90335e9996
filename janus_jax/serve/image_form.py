"""The body of /v1/images/generations (platform.openai.com/docs/api-reference/images/create, as the
package `openai` types it), with the extensions `seed`, `guidance_scale`, `temperature` and
`negative_prompt`.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from janus_jax.serve.errors import told
from janus_jax.serve.forms import Count, Form, Scale, Seed, Temperature, unread

MOST_PARTIAL = 24


def _of_the_model(value, info: ValidationInfo):
    size = info.context.size
    if value not in (None, "auto", size):
        raise ValueError(f"is {told(value)}: this model draws {size}; give it, or leave it out")
    return value


class ImageRequest(Form):
    """Pictures for a prompt."""

    prompt: str
    model: str | None = None
    n: Count = None
    size: Annotated[str | None, AfterValidator(_of_the_model)] = None
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
