"""Where a remote is, and whether it may be spoken to there: plain http to this machine alone, and then past every
proxy, unless it is asked for in so many words."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

import requests
from requests.exceptions import InvalidURL, RequestException
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from backhaul.errors import ConfigurationInvalid, RemoteInsecure

PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


class FirstHop(NamedTuple):
    """Where a connection goes first: the server, or the proxy before it. loopback: the server is on this machine."""

    host: str
    port: int
    loopback: bool


def first_hop(url: str, *, allow_plain: bool = False) -> FirstHop:
    """Raises ConfigurationInvalid (not a URL of a server), RemoteInsecure."""
    hop = read(url)
    loopback = _loopback(str(hop.host))
    if permitted(hop, allow_plain):
        proxy = select_proxy(hop.url, get_environ_proxies(hop.url, no_proxy=None))
        if proxy:
            hop = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    port = hop.port or PORTS.get(str(hop.scheme), 443)
    return FirstHop(str(hop.host).strip("[]"), port, loopback)


def read(url: str) -> Url:
    """As the one who connects will read it; another parser could see another host. Raises ConfigurationInvalid."""
    hint = "a remote looks like https://sync.example.org"
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", url):
        raise ConfigurationInvalid("the remote's URL holds spaces or characters that no URL has", hint=hint)
    try:
        parsed = parse_url(url)
        requests.Request("GET", url).prepare()
    except (LocationParseError, InvalidURL, RequestException) as error:
        raise ConfigurationInvalid("the remote's URL cannot be read", hint=hint) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationInvalid("the remote's URL is neither http nor https", hint=hint)
    if parsed.auth or parsed.query or parsed.fragment:
        raise ConfigurationInvalid("the remote's URL holds more than a host and a path", hint=hint)
    return parsed._replace(path=(parsed.path or "").rstrip("/") or None)


def permitted(url: Url, allow_plain: bool) -> bool:
    """Whether the machine's proxies and certificates apply. Raises RemoteInsecure for plain http to another machine."""
    if url.scheme == "https":
        return True
    loopback = _loopback(str(url.host))
    if not loopback and not allow_plain:
        raise RemoteInsecure(
            f"{url.url} is plain http to another machine: anyone on the way could read the token and the data",
            hint=f"use https://{url.netloc}, or put a server with TLS before it; plain http is for this machine only",
        )
    return not loopback


def guarded(url: Url) -> bool:
    """Whether bytes arrive as they were sent, or not at all: over TLS, and within this machine."""
    return url.scheme == "https" or _loopback(str(url.host))


def _loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
