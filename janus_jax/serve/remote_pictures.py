"""Pictures that a request names by address."""


def fetch(url: str, hosts, max_bytes: int, seconds: float) -> bytes:
    """The file at an address. Raises ValueError."""
    raise ValueError(f"{url}: no address is followed yet; send the picture as a data URI")
