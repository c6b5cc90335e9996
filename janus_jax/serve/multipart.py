"""The body of a form with files, multipart/form-data (RFC 7578): read within its limits, and brought to
its form."""

import email.parser

from pydantic import ValidationError

from janus_jax.serve.body import read_bytes
from janus_jax.serve.errors import Refused, told, unfit

KIND = "multipart/form-data"
PARTS = 100  # of a body


async def read_files(request, form, names: tuple[str, ...]) -> tuple:
    """(the text fields as `form`, a pydantic model; the bytes of the files of these names, in order).
    Raises Refused."""
    service = request.app.state.service
    service.require_ready()
    kind = request.headers.get("content-type", "")
    head = email.parser.HeaderParser().parsestr(f"Content-Type: {kind}")
    boundary = head.get_boundary()
    if head.get_content_type() != KIND or not boundary:
        raise Refused(
            415, "unsupported_media_type",
            f"Content-Type is {told(kind)}; send a form with files, as `curl -F image=@a.png` does",
        )  # fmt: skip
    values = {}
    files = []
    for name, content, is_file in parts(bytes(await read_bytes(request, service)), boundary):
        if name in names:
            if not is_file:
                raise _refused(
                    f"{name} is text; send the picture's file, as -F {name}=@a.png", name
                )
            files.append(content)
        elif is_file:
            raise _refused(f"{name}: no file of this name is read; leave it out", name)
        elif name in values:
            raise _refused(f"the form has {told(name)} twice; give it once", name)
        else:
            values[name] = _text(content, name)
    try:
        asked = form.model_validate_strings(values, context=service.limits)
    except ValidationError as error:
        raise unfit(error, form) from None
    service.require_model(asked.model)
    return asked, files


def parts(data: bytes, boundary: str) -> list[tuple[str, bytes, bool]]:
    """(name, content, whether it is a file) of each part. Raises Refused."""
    mark = b"\r\n--" + boundary.encode("latin-1", "replace")
    found = (b"\r\n" + data).split(mark)[1:]
    if not found or not found[-1].startswith(b"--"):
        raise _refused("the form has no end: it was cut on the way, or its boundary is another")
    if len(found) > PARTS:
        raise _refused(f"the form has {len(found) - 1:,} parts, at most {PARTS - 1} are read")
    out = []
    for part in found[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        said = email.parser.BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
        name = said.get_param("name", header="content-disposition")
        if not blank or not isinstance(name, str):
            raise _refused('a part of the form has no Content-Disposition with a name="..."')
        out.append((name, content, said.get_filename() is not None))
    return out


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _refused(f"{name}: is no UTF-8 ({error}); encode it again", name) from None


def _refused(text: str, param: str | None = None) -> Refused:
    return Refused(400, "invalid_form", text, param and param[:120])
