"""Pictures by web address, without lending a caller the server's place in its network: only from
hosts that are listed, only at public addresses, and within limits of size, time and redirects.
"""

import concurrent.futures
import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
import urllib.parse

from PIL import UnidentifiedImageError

from janus_jax.common.text import listed
from janus_jax.data.image_files import header
from janus_jax.data.image_types import what_it_is
from janus_jax.data.sources import shown

_HOPS = 3  # redirects of one picture
_HEADERS = {"Accept": "image/*", "User-Agent": "janus_jax"}
_PORTS = {"http": 80, "https": 443}
_NAME = r"(?:[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\])"
_HOST = re.compile(_NAME)
_ENTRY = re.compile(rf"(\*\.)?{_NAME}(:[1-9][0-9]{{0,4}})?")
# What `ipaddress` calls global and a cloud or a router answers itself: 6to4 relays, Oracle's and
# Azure's hosts of metadata.
_INNER = [
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
]
# Of IPv6 all public unicast lies here; outside are the forms that carry an IPv4 address (mapped,
# compatible, NAT64), but one.
_UNICAST = ipaddress.ip_network("2000::/3")
_6TO4 = ipaddress.ip_network("2002::/16")


def check_hosts(hosts):
    """Raises ValueError that lists the entries of --allow_urls that name no host."""
    form = "write a host as example.org, *.example.org or example.org:8080"
    wrong = [f"{shown(host)!r}: {form}" for host in hosts if not _ENTRY.fullmatch(host.lower())]
    if wrong:
        raise ValueError(f"allow_urls:{listed(wrong)}")


def fetch(url: str, hosts, max_bytes: int, seconds: float) -> bytes:
    """The picture file at an http(s) address. Blocks: call it in a thread.

    No proxy, cookies or credentials are used; a certificate must be valid for the name. Raises
    ValueError that says in one sentence why there is no picture.

    url: of ASCII letters; others percent-encoded.
    hosts: names that are allowed, "example.org" or "*.example.org" (all below it), with ports 80
        and 443, or with one of their own, "example.org:8080". Redirects must stay within them.
    max_bytes: of the file.
    seconds: for all of it, from finding the host's address to the last byte.
    """
    end = time.monotonic() + seconds
    name = shown(url, 120)
    for _ in range(_HOPS + 1):
        parts = _allowed(url, hosts, name)
        try:
            status, place, data = _get(parts, max_bytes, end)
        except TimeoutError:
            raise ValueError(f"{name}: did not come within {seconds:g} seconds") from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "verify_message", "") or getattr(error, "strerror", "")
            raise ValueError(f"{name}: cannot be read ({why or type(error).__name__})") from None
        if place is None:
            break
        url = urllib.parse.urljoin(url, place)
    else:
        raise ValueError(f"{name}: redirects more than {_HOPS} times; give the last address")
    if status != 200:
        raise ValueError(f"{name}: the host answered {status}, not 200; check the address")
    if len(data) > max_bytes:
        raise ValueError(f"{name}: is larger than {max_bytes:,} bytes; scale the picture down")
    try:
        header(data)
    except UnidentifiedImageError:
        raise ValueError(f"{name}: {what_it_is(data[:1024])[1]}") from None
    except Exception as error:  # damaged bytes make Pillow's readers raise nearly anything
        raise ValueError(f"{name}: {error}") from None
    return data


def is_public(address: str) -> bool:
    """Whether an IP address lies outside of every private, local, shared, reserved or multicast
    network, and is no host of a cloud's metadata."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        return ip in _UNICAST and ip not in _6TO4 and ip.is_global
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _INNER)


def _allowed(url: str, hosts, name: str):
    """The parts of an address that may be asked. Raises ValueError."""
    if not all("!" <= letter <= "~" for letter in url) or "\\" in url:
        raise ValueError(f"{name}: holds letters that no web address has; percent-encode them")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{name}: is no web address ({error})") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"{name}: its scheme is {shown(parts.scheme, 20)!r}, not http or https")
    if "@" in parts.netloc:
        raise ValueError(f"{name}: holds a user or a password, which are not sent; leave them out")
    host = (parts.hostname or "").removesuffix(".")
    host = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(host):
        raise ValueError(f"{name}: names no host")
    if not any(_matches(entry.lower(), host, port) for entry in hosts):
        place = host if port in (None, *_PORTS.values()) else f"{host}:{port}"
        raise ValueError(
            f"{name}: pictures of {shown(place)} are not allowed here (--allow_urls); send the "
            "picture as a data URI"
        )
    return parts


def _matches(entry: str, host: str, port: int | None) -> bool:
    wanted, _, own = entry.rpartition(":") if re.search(r":\d+$", entry) else (entry, "", "")
    if port not in ((int(own),) if own else (None, *_PORTS.values())):
        return False
    return host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted


def _get(parts, max_bytes: int, end: float) -> tuple[int, str | None, bytes]:
    """Status, where a redirect leads, and at most max_bytes + 1 of the content."""
    port = parts.port or _PORTS[parts.scheme]
    connection = http.client.HTTPConnection(parts.hostname, port)
    with _connect(parts.hostname, port, end) as plain:
        connection.sock = plain
        if parts.scheme == "https":
            context = ssl.create_default_context()
            plain.settimeout(_left(end))
            connection.sock = context.wrap_socket(plain, server_hostname=parts.hostname)
        with connection.sock as sock:
            sock.settimeout(_left(end))
            path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("GET", path, headers=_HEADERS | {"Host": parts.netloc})
            response = http.client.HTTPResponse(_Timed(sock, end), method="GET")
            response.begin()
            place = response.getheader("Location")
            if response.status in (301, 302, 303, 307, 308) and place:
                return response.status, place, b""
            data = response.read(max_bytes + 1) if response.status == 200 else b""
            if response.length and len(data) <= max_bytes:
                raise http.client.IncompleteRead(data, response.length)
            return response.status, None, data


def _connect(host: str, port: int, end: float) -> socket.socket:
    """A connection to an address that was checked: the name is looked up once. Raises ValueError
    where one of its addresses is not public."""
    addresses = [place for *_, place in _addresses(host, port, _left(end))]
    if not all(is_public(address) for address, *_ in addresses):
        raise ValueError(
            f"{host}: its address is not public (it is private, local or reserved); send the picture "
            "as a data URI"
        )
    for place in addresses:
        try:
            return socket.create_connection(place[:2], _left(end))
        except OSError as error:
            failed = error
    raise failed


def _addresses(host: str, port: int, seconds: float) -> list[tuple]:
    """As `socket.getaddrinfo`, which knows no time limit: in a thread, which nobody waits for."""
    found = concurrent.futures.Future()

    def ask():
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return found.result(seconds)


def _left(end: float) -> float:
    """Seconds until `end`. Raises TimeoutError."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """The reading side of a socket, all of which ends at one time: a socket's own limit is one for
    each read, and a host that sends a byte a second would never meet it."""

    def __init__(self, sock: socket.socket, end: float):
        self.sock = sock
        self.end = end

    def makefile(self, _mode):
        return io.BufferedReader(self)

    def readable(self):
        return True

    def readinto(self, buffer):
        self.sock.settimeout(_left(self.end))
        return self.sock.recv_into(buffer)
