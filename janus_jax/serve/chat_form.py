"""The body of /v1/chat/completions (platform.openai.com/docs/api-reference/chat/create, as the package
`openai` types it), with the extensions `draw`, `guidance_scale`, `negative_prompt` and `size`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from janus_jax.serve.errors import told
from janus_jax.serve.forms import Count, Form, Scale, Seed, Size, Temperature, TopP, ruled, unread

TOOLS = "this model calls no tools"


class ImageUrl(Form):
    """url: a data URI, or an address where the server allows its host. detail: every picture is
    brought to the model's one size, whatever it says."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class Part(Form):
    """A stretch of words, or a picture."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _holds_what_it_says(self):
        other = "image_url" if self.type == "text" else "text"
        if getattr(self, self.type) is None:
            raise ValueError(f"is of type {self.type!r} and has no {self.type!r}; give it")
        if getattr(self, other) is not None:
            raise ValueError(f"is of type {self.type!r} and has {other!r} too; leave it out")
        return self


def _parts(content):
    if not isinstance(content, str | list | None):
        raise ValueError(f"is {told(content)}: must be a string, or a list of parts")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(Form):
    """What one side says. content: a string, or parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[list[Part], Field(max_length=1000)] | None,
        BeforeValidator(_parts, json_schema_input_type=str | list[Part] | None),
    ] = None
    name: unread("the model is told roles and no names") = None
    tool_calls: unread(TOOLS, []) = None
    function_call: unread(TOOLS) = None
    refusal: unread("this model gives none") = None
    audio: unread("this model hears nothing") = None
    annotations: unread("nothing reads them", []) = None

    @model_validator(mode="after")
    def _says_something(self):
        if self.content is None and self.role != "assistant":
            raise ValueError(f"has the role {self.role!r} and no content; say something")
        if self.role in ("system", "developer") and any(p.image_url for p in self.content):
            raise ValueError("holds a picture: a system text is words; put it in a user message")
        return self


class StreamOptions(Form):
    """include_usage: a last chunk tells the tokens."""

    include_usage: bool | None = None
    include_obfuscation: unread("nothing is padded here", False) = None


def _within_context(value, info: ValidationInfo):
    most = info.context.context
    if value is not None and value > most:
        raise ValueError(
            f"is {told(value)}: the context is {most:,} tokens, prompt and answer together; ask for "
            "fewer, or leave it out"
        )
    return value


def _few_pictures(messages, info: ValidationInfo):
    count = sum(part.image_url is not None for m in messages for part in m.content or ())
    most = info.context.max_pictures
    if count > most:
        raise ValueError(f"{count} pictures, at most {most} (--max_pictures); leave some out")
    return messages


def _strings(stop):
    if not isinstance(stop, str | list | None):
        raise ValueError(f"is {told(stop)}: must be a string, or a list of strings")
    return [stop] if isinstance(stop, str) else stop


Tokens = Annotated[int | None, ruled("max_new_tokens"), AfterValidator(_within_context)]
Stop = Annotated[
    Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)]
    | None,
    BeforeValidator(_strings, json_schema_input_type=str | list[str] | None),
]


class ChatRequest(Form):
    """A conversation that awaits its next answer, or a drawing of its last message."""

    messages: Annotated[
        list[Message], Field(min_length=1, max_length=1000), AfterValidator(_few_pictures)
    ]
    model: str | None = None
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    temperature: Temperature = None
    top_p: TopP = None
    seed: Seed = None
    stop: Stop = None
    n: Count = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: Annotated[list[Literal["text", "image"]], Field(max_length=2)] | None = None
    draw: bool | None = None
    guidance_scale: Scale = None
    negative_prompt: str | None = None
    size: Size = None
    # Marks for the caller's own books.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    frequency_penalty: unread("tokens are drawn as the model says", 0, 0.0) = None
    presence_penalty: unread("tokens are drawn as the model says", 0, 0.0) = None
    logit_bias: unread("tokens are drawn as the model says", {}) = None
    logprobs: unread("no probabilities are told", False) = None
    top_logprobs: unread("no probabilities are told", 0) = None
    response_format: unread("answers are plain text, no JSON is enforced", {"type": "text"}) = None
    tools: unread(TOOLS, []) = None
    tool_choice: unread(TOOLS, "none", "auto") = None
    parallel_tool_calls: unread(TOOLS, False, True) = None
    functions: unread(TOOLS, []) = None
    function_call: unread(TOOLS, "none", "auto") = None
    reasoning_effort: unread("this model answers at once", "none") = None
    verbosity: unread("say in the message how long it shall be") = None
    prediction: unread("nothing is predicted ahead") = None
    audio: unread("this model neither hears nor speaks") = None
    web_search_options: unread("nothing is looked up") = None
    store: unread("nothing is stored", False) = None
    metadata: unread("nothing is stored", {}) = None
    moderation: unread("nothing is moderated") = None
    service_tier: unread("there is one tier", "auto", "default") = None
    prompt_cache_options: unread("equal prompts that run together are read once, by itself") = None
    prompt_cache_retention: unread("nothing is kept") = None

    @property
    def draws(self) -> bool:
        return bool(self.draw) or "image" in (self.modalities or ())

    @model_validator(mode="after")
    def _agrees_with_itself(self):
        faults = []
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            faults.append("max_tokens and max_completion_tokens differ; give one of them")
        if self.stream_options is not None and not self.stream:
            faults.append("stream_options without stream; set stream to true, or leave it out")
        if self.draw is False and "image" in (self.modalities or ()):
            faults.append("draw is false and modalities has 'image'; leave one out")
        of_answers = ("max_tokens", "max_completion_tokens", "top_p", "stop")
        unread_here = of_answers if self.draws else ("guidance_scale", "negative_prompt", "size")
        what = "a drawing" if self.draws else "an answer in words"
        faults += [
            f"{name}: {what} does not read it; leave it out"
            for name in unread_here
            if getattr(self, name) is not None
        ]
        if self.draws and any(part.image_url for part in self.messages[-1].content or ()):
            faults.append(
                "the last message holds a picture: a drawing is made of words alone; leave it out"
            )
        if self.draws and self.messages[-1].role != "user":
            faults.append("the last message must be the user's: its words are what is drawn")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def words(self) -> str:
        """The text of the last message: what is to be drawn."""
        return "\n".join(part.text for part in self.messages[-1].content or ())

    def most(self) -> dict[str, Any]:
        """max_new_tokens where it was given."""
        given = (
            self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        )
        return {} if given is None else {"max_new_tokens": given}
