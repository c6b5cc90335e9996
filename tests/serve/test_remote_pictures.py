"""Pictures by web address come from allowed hosts at public addresses, within limits, or not at
all."""

import io
import re
import socket
import ssl
import threading
import time

import pytest
from PIL import Image
from support import web as webs

from janus_jax.serve import remote_pictures
from janus_jax.serve.remote_pictures import check_hosts, fetch, is_public

HOSTS = ("pictures.example", "*.below.example", "with-port.example:8080")


def png(size=(3, 2)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def web(monkeypatch):
    with webs.local_web(monkeypatch) as out:
        out.page("/a.png", png())
        yield out


def refused(url: str, match: str, hosts=HOSTS, max_bytes=10_000, seconds=10.0):
    with pytest.raises(ValueError, match=re.escape(match)) as caught:
        fetch(url, hosts, max_bytes, seconds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.example/a.png",
        "http://PICTURES.example./a.png",
        "http://pictures.example:80/a.png",
        "http://x.below.example/a.png",
        "http://x.y.below.example/a.png#part",
        "http://with-port.example:8080/a.png",
    ],
)
def test_fetch_gives_the_file_of_an_allowed_host(web, url):
    assert fetch(url, HOSTS, 10_000, 10.0) == png()
    [(_, path, headers)] = web.asked
    assert path == "/a.png"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


@pytest.mark.parametrize(
    "url, why",
    [
        ("http://other.example/a.png", "pictures of other.example are not allowed"),
        ("http://below.example/a.png", "pictures of below.example are not allowed"),
        ("http://xbelow.example/a.png", "not allowed"),
        ("http://pictures.example.evil.example/a.png", "not allowed"),
        ("http://pictures.example:8080/a.png", "pictures.example:8080 are not allowed"),
        ("http://pictures.example:0/a.png", "not allowed"),
        ("http://with-port.example/a.png", "not allowed"),
        ("http://127.0.0.1/a.png", "not allowed"),
        ("http://2130706433/a.png", "not allowed"),
        ("http://[::1]/a.png", "not allowed"),
        ("http://pictures.example@other.example/a.png", "a user or a password"),
        ("http://me:secret@pictures.example/a.png", "a user or a password"),
        ("http://other.example\\@pictures.example/a.png", "letters that no web address has"),
        ("http://pictures.example/a b.png", "letters that no web address has"),
        ("http://pictures.example/a.png\r\nX-Evil: 1", "letters that no web address has"),
        ("http://pictures.example/ä.png", "letters that no web address has"),
        ("file:///etc/passwd", "'file', not http or https"),
        ("ftp://pictures.example/a.png", "'ftp', not http or https"),
        ("gopher://pictures.example/a.png", "'gopher', not http or https"),
        ("http:///a.png", "names no host"),
        ("http://..below.example/a.png", "names no host"),
        (f"http://{'x' * 64}.below.example/a.png", "names no host"),
        ("http://[pictures.example/a.png", "is no web address"),
        ("http://pictures.example:99999/a.png", "is no web address"),
        ("http://pictures.example:80x/a.png", "is no web address"),
    ],
)
def test_fetch_asks_nobody_for_an_address_that_is_not_allowed(web, url, why):
    refused(url, why)
    assert web.looked_up == [] and web.asked == []


@pytest.mark.parametrize(
    "address, public",
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("127.0.0.1", False), ("127.8.8.8", False), ("0.0.0.0", False), ("0.1.2.3", False),
        ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.1", False),
        ("169.254.169.254", False), ("100.100.100.200", False), ("192.0.0.192", False),
        ("168.63.129.16", False), ("224.0.0.1", False), ("239.1.1.1", False),
        ("240.0.0.1", False), ("255.255.255.255", False), ("192.88.99.1", False),
        ("192.0.2.1", False), ("198.18.0.1", False),
        ("::1", False), ("::", False), ("::ffff:8.8.8.8", False), ("::ffff:127.0.0.1", False),
        ("::8.8.8.8", False), ("64:ff9b::a00:1", False), ("2002:a00:1::1", False),
        ("2001::1", False), ("fe80::1", False), ("fe80::1%eth0", False), ("fec0::1", False),
        ("fc00::1", False), ("fd00:ec2::254", False), ("ff02::1", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_only_addresses_of_the_public_internet_are_public(address, public):
    assert is_public(address) is public


def test_fetch_refuses_loopback_by_itself(monkeypatch):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    port = listener.getsockname()[1]
    refused(f"http://localhost:{port}/", "is not public", hosts=[f"localhost:{port}"])
    refused(f"http://127.0.0.1:{port}/", "is not public", hosts=[f"127.0.0.1:{port}"])
    with pytest.raises(BlockingIOError):  # nobody has connected
        listener.accept()
    listener.close()


def test_fetch_refuses_a_name_one_of_whose_addresses_is_private(web, monkeypatch):
    both = [(2, 1, 6, "", (address, 80)) for address in ("127.0.0.1", "10.0.0.1")]
    monkeypatch.setattr(remote_pictures, "_addresses", lambda *_: both)
    refused("http://pictures.example/a.png", "its address is not public")
    assert web.asked == []


def test_fetch_connects_to_the_address_that_it_checked(web, monkeypatch):
    """A name that is another address when it is looked up again (rebinding) is looked up once."""
    asked = []
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a: asked.append(a[0]) or real(*a))
    assert fetch("http://pictures.example/a.png", HOSTS, 10_000, 10.0) == png()
    assert web.looked_up == ["pictures.example"] and asked == ["127.0.0.1"]


def test_fetch_follows_redirects_within_the_list(web):
    web.page("/one", status=301, Location="two")
    web.page("/two", status=302, Location="http://x.below.example/three")
    web.page("/three", status=307, Location="//pictures.example/a.png")
    assert fetch("http://pictures.example/one", HOSTS, 10_000, 10.0) == png()
    assert [(host, path) for host, path, _ in web.asked] == [
        ("pictures.example", "/one"),
        ("pictures.example", "/two"),
        ("x.below.example", "/three"),
        ("pictures.example", "/a.png"),
    ]


@pytest.mark.parametrize(
    "place, why",
    [
        ("http://other.example/a.png", "other.example are not allowed"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 are not allowed"),
        ("http://inside.below.example/a.png", "is not public"),
        ("file:///etc/passwd", "'file', not http or https"),
        ("http://me@pictures.example/a.png", "a user or a password"),
        ("http://pictures.example:22/a.png", "pictures.example:22 are not allowed"),
        ("/one", "redirects more than 3 times"),
    ],
)
def test_each_hop_is_checked_again(web, place, why):
    web.addresses["inside.below.example"] = "10.0.0.1"
    web.page("/one", status=302, Location=place)
    refused("http://pictures.example/one", why)
    assert {path for _, path, _ in web.asked} == {"/one"}


def test_an_address_in_the_list_that_is_private_stays_refused(web):
    web.page("/one", status=302, Location="http://169.254.169.254/a.png")
    refused("http://pictures.example/one", "not public", hosts=[*HOSTS, "169.254.169.254"])


@pytest.mark.parametrize("told", [True, False])
def test_a_file_above_the_limit_is_refused_whether_or_not_its_length_is_told(web, told):
    length = {"Content_Length": "5000"} if told else {}
    web.page("/large", bytes(5000), **length)
    refused("http://pictures.example/large", "is larger than 4,999 bytes", max_bytes=4999)


@pytest.mark.parametrize("part", ["head", "body"])
def test_the_time_is_of_the_whole_and_not_of_a_read(web, part):
    """A host that sends a byte now and then keeps every single read short."""

    def drip(handler):
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    web.pages["/slow"] = drip
    refused("http://pictures.example/slow", "did not come within 0.2 seconds", seconds=0.2)


def test_looking_up_a_name_counts_as_time(monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(20))
    refused("http://pictures.example/", "did not come within 0.05 seconds", seconds=0.05)
    done.set()


def test_a_name_that_nobody_knows_is_told(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused("http://pictures.example/", "cannot be read (Name or service not known)")


@pytest.mark.parametrize(
    "content, why",
    [
        (b"<!doctype html><title>a picture</title>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported type SVG"),
        (b"", "is empty"),
        (b'{"error": 1}', "is JSON text"),
        (b"\x1f\x8b\x08", "unsupported type gzip"),
        (b"%PDF-1.4", "unsupported type PDF"),
    ],
)
def test_the_content_decides_what_is_a_picture(web, content, why):
    web.page("/b.png", content, Content_Type="image/png")
    refused("http://pictures.example/b.png", why)


def test_a_stopped_download_is_no_picture(web):
    web.page("/cut", png(), Content_Length=str(len(png()) + 1))
    refused("http://pictures.example/cut", "cannot be read (IncompleteRead)")


def test_another_status_than_200_is_told(web):
    web.page("/gone", png(), status=404)
    refused("http://pictures.example/gone", "the host answered 404, not 200")


def test_a_reply_that_is_no_http_is_told(web):
    web.pages["/odd"] = lambda handler: handler.wfile.write(b"220 smtp.example ESMTP\r\n")
    refused("http://pictures.example/odd", "cannot be read (BadStatusLine)")


def test_no_proxy_of_the_environment_is_used(web, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert fetch("http://pictures.example/a.png", HOSTS, 10_000, 10.0) == png()


@pytest.mark.parametrize("host, valid", [("pictures.example", True), ("x.below.example", False)])
def test_a_certificate_must_be_of_the_name(monkeypatch, host, valid):
    real = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: real(cafile=webs.CERTIFICATE))
    with webs.local_web(monkeypatch, tls=True) as web:
        web.page("/a.png", png())
        if valid:
            assert fetch(f"https://{host}/a.png", HOSTS, 10_000, 10.0) == png()
            assert web.asked[0][0] == host  # without a port, which few servers expect there
        else:
            refused(f"https://{host}/a.png", "Hostname mismatch")
            assert web.asked == []


def test_a_certificate_must_be_signed(monkeypatch):
    with webs.local_web(monkeypatch, tls=True):
        refused("https://pictures.example/a.png", "self-signed certificate")


def test_every_entry_that_names_no_host_is_told():
    check_hosts([*HOSTS, "[2606:4700::1111]:8080", "Example.ORG"])
    wrong = ["http://a.example", "*", "a b", "a.example/x", "", "a.example:0", "*.*.example"]
    with pytest.raises(ValueError) as caught:
        check_hosts(wrong)
    assert all(repr(entry) in str(caught.value) for entry in wrong)
