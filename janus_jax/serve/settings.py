"""What a server allows, and what it is called: the flags of the command `serve`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """model: the name that requests give it.
    api_keys: any of them opens the door; none: it stands open.
    allow_urls: hosts whose pictures may be named by address; none: no address is followed.
    cors: origins whose pages may ask; ("*",) is all, none is only the page of this server.
    max_body: bytes of a request. max_picture: pixels of a picture. max_pictures: of a request.
    max_n: answers or pictures of one request.
    request_timeout: seconds that a request may wait and run. body_timeout: seconds to send it.
    """

    model: str
    api_keys: tuple[str, ...] = ()
    allow_urls: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    max_body: int = 20_000_000
    max_picture: int = 25_000_000
    max_pictures: int = 8
    max_n: int = 8
    request_timeout: float = 600.0
    body_timeout: float = 30.0
