"""Which content store a server has: its own disk, or what `[server] media` names.

    s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME&redirect=SECONDS

The credentials are found where boto3 looks for them: environment, profile, or the machine's role.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from backhaul.errors import Busy, ConfigurationInvalid
from backhaul.server.contents.base import ContentStore
from backhaul.server.contents.disk import DiskStore
from backhaul.server.settings import Settings

SHAPE = "s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME&redirect=SECONDS; only the bucket must be there"
OPTIONS = {"endpoint", "region", "redirect", "plain"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_REDIRECT = 3600
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 60, 2


def open_store(settings: Settings) -> ContentStore:
    """Raises ConfigurationInvalid. A bucket that does not answer now may do so later."""
    if settings.media is None:
        return DiskStore(settings.data / "media")
    try:
        from backhaul.server.contents.s3 import S3Store
    except ImportError as error:
        raise ConfigurationInvalid(
            "media in a bucket need boto3, which is not installed", hint='pip install "backhaul[s3]"'
        ) from error
    said = urlsplit(settings.media)
    options = _options(said)
    prefix = said.path.strip("/")
    store = S3Store(
        _client(options),
        said.netloc,
        f"{prefix}/" if prefix else "",
        settings.data / "media" / "parts",
        redirect_seconds=int(options.get("redirect", "0")),
    )
    with suppress(Busy):
        store.check()
    return store


def _options(said: SplitResult) -> dict[str, str]:
    found = {name: values[-1] for name, values in parse_qs(said.query).items()}
    if said.scheme != "s3" or not said.netloc or said.fragment or found.keys() - OPTIONS:
        raise ConfigurationInvalid("[server] media is no place for media", hint=SHAPE)
    redirect = found.get("redirect", "0")
    if not (redirect.isascii() and redirect.isdigit() and int(redirect[:9]) <= LONGEST_REDIRECT):
        raise ConfigurationInvalid(f"redirect is seconds, up to {LONGEST_REDIRECT}", hint=SHAPE)
    _check_endpoint(found)
    return found


def _check_endpoint(options: dict[str, str]) -> None:
    endpoint = options.get("endpoint")
    if endpoint is None:
        return
    place = urlsplit(endpoint)
    if place.scheme not in ("http", "https") or not place.hostname or place.username:
        raise ConfigurationInvalid("the endpoint of media is no URL of a server", hint=SHAPE)
    if place.scheme == "http" and place.hostname not in LOOPBACK and options.get("plain") != "1":
        raise ConfigurationInvalid(
            "media would go across a network in clear text",
            hint="use https, or say plain=1 if nobody else is on that network",
        )


def _client(options: dict[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=16,
        request_checksum_calculation="when_required",  # every such store knows the Content-MD5 that we send
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if "endpoint" in options else "auto"},
    )
    return boto3.client("s3", endpoint_url=options.get("endpoint"), region_name=options.get("region"), config=config)
