"""Where a connection goes: the server, or the proxy before it."""

from __future__ import annotations

import pytest

from backhaul.errors import ConfigurationInvalid, RemoteInsecure
from backhaul.remotes.address import first_hop, guarded, read


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("url", "hop"),
    [
        ("https://sync.example.org/x", ("sync.example.org", 443, False)),
        ("https://sync.example.org:8443", ("sync.example.org", 8443, False)),
        ("https://[2001:db8::1]", ("2001:db8::1", 443, False)),
        ("http://127.0.0.1:8765", ("127.0.0.1", 8765, True)),
        ("http://localhost", ("localhost", 80, True)),
    ],
)
def test_a_connection_goes_to_the_server(url: str, hop: tuple[str, int, bool]) -> None:
    assert first_hop(url) == hop


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("proxy", "hop"),
    [
        ("http://proxy.example.org:3128", ("proxy.example.org", 3128, False)),
        ("proxy.example.org:3128", ("proxy.example.org", 3128, False)),
        ("http://user:secret@127.0.0.1:3128", ("127.0.0.1", 3128, False)),
        ("socks5h://proxy.example.org", ("proxy.example.org", 1080, False)),
    ],
)
def test_or_to_the_proxy_before_it(monkeypatch: pytest.MonkeyPatch, proxy: str, hop: tuple[str, int, bool]) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    assert first_hop("https://sync.example.org") == hop
    assert first_hop("http://127.0.0.1:9") == ("127.0.0.1", 9, True)
    monkeypatch.setenv("no_proxy", "example.org")
    assert first_hop("https://sync.example.org") == ("sync.example.org", 443, False)


@pytest.mark.parametrize("url", ["ftp://sync.example.org", "", "http://sync.example.org"])
def test_but_never_where_it_may_not(url: str) -> None:
    with pytest.raises((ConfigurationInvalid, RemoteInsecure)):
        first_hop(url)


@pytest.mark.parametrize(
    ("url", "so"),
    [
        ("https://sync.example.org", True),
        ("http://127.0.0.1:9", True),
        ("http://[::1]:9", True),
        ("http://localhost:9", True),
        ("http://192.0.2.7", False),
        ("http://sync.example.org", False),
    ],
)
def test_bytes_are_guarded_by_tls_and_within_this_machine(url: str, so: bool) -> None:
    assert guarded(read(url)) == so
