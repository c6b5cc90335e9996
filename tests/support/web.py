"""A small web on this machine: hosts by name, as the package's fetching of pictures sees them."""

import contextlib
import http.server
import ipaddress
import socket
import ssl
import threading

from support.paths import TESTS

from janus_jax.serve import remote_pictures

CERTIFICATE = TESTS / "support" / "pictures_example.pem"  # of pictures.example, with its key


class Web:
    """pages: path -> function of the handler that answers it. asked: (Host, path, headers) of
    every request, in order. looked_up: every name, in order. addresses: name -> IP address; a name
    that is not among them is at the local server."""

    def __init__(self):
        self.pages = {}
        self.asked = []
        self.looked_up = []
        self.addresses = {}

    def page(self, path: str, content: bytes = b"", status: int = 200, **headers: str):
        def answer(handler):
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(content)

        self.pages[path] = answer


@contextlib.contextmanager
def local_web(monkeypatch, tls: bool = False):
    """A `Web` whose hosts are served by this machine; 127.0.0.1 counts as public meanwhile."""
    web = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            web.asked.append((self.headers["Host"], self.path, dict(self.headers)))
            with contextlib.suppress(OSError):  # who asked has left
                web.pages[self.path](self)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):  # handshakes that a test makes fail
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)

    def addresses(host, port, seconds):
        web.looked_up.append(host)
        with contextlib.suppress(ValueError):  # a name
            web.addresses[host] = str(ipaddress.ip_address(host))
        address = web.addresses.get(host)
        place = ("127.0.0.1", server.server_address[1]) if address is None else (address, port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place)]

    real = remote_pictures.is_public
    monkeypatch.setattr(remote_pictures, "_addresses", addresses)
    allowed = lambda address: address == "127.0.0.1" or real(address)
    monkeypatch.setattr(remote_pictures, "is_public", allowed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
