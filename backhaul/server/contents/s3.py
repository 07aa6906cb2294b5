"""Contents in a bucket of S3, or of what speaks like it: https://docs.aws.amazon.com/AmazonS3/latest/API/.

    PREFIX content/<hash of the scope>/<hash>    what is whole and checked; the same names as on a disk
    PREFIX uploads/<random id>                   an upload whose last byte has come, until its hash is checked

Parts gather on the server's disk (segments.py) and go when they are full and promised. A small upload goes in one
piece, straight to its place, after its hash was checked here. A large one is a multipart upload: completed under a
name of its own, read back and hashed, and only then copied to its place.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from backhaul.errors import ConfigurationInvalid
from backhaul.server.contents.base import AT_ONCE, BLOCK, Blocks, Whole
from backhaul.server.contents.disk import Lock
from backhaul.server.contents.s3_answers import answers_read, is_missing
from backhaul.server.contents.segments import LOCK, Segments, SegmentTail
from backhaul.server.problems import refusal

PART = 8 * 2**20  # S3 wants 5 MiB at least, of all but the last
MOST_PARTS = 10_000
COPY_IN_PARTS = 5 * 2**30  # from here on S3 copies in parts only


class S3Store:
    """A ContentStore. client: boto3's. prefix: "" or something that ends with a slash. redirect_seconds: how long the
    addresses of contents that are given out are good for; 0 gives none."""

    local = False

    def __init__(self, client: Any, bucket: str, prefix: str, folder: Path, *, redirect_seconds: int = 0) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._folder = folder
        self._redirect_seconds = redirect_seconds
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def check(self) -> None:
        """Raises ConfigurationInvalid, Busy."""
        try:
            with answers_read():
                self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            raise ConfigurationInvalid(
                f"there is no bucket {self._bucket}", hint="make it, or look at [server] media"
            ) from error

    def begin(self, upload: str, length: int) -> None:
        self._segments(upload, length).create()

    def hold(self, upload: str) -> Lock:
        """Against other processes on this machine: its parts are in the same folder."""
        return Lock(self._folder / upload / LOCK, make=True)

    def append(self, upload: str, length: int, position: int, algorithm: str | None) -> SegmentTail:
        segments = self._segments(upload, length)
        if segments.folder.is_dir():
            self._send(upload, segments, length, position)  # what a store that was busy has left lying here
        return SegmentTail(
            segments, position, algorithm, lambda promised: self._send(upload, segments, length, promised)
        )

    def sync(self, upload: str) -> None:
        """Each tail has done so itself."""

    def whole(self, upload: str, length: int) -> Blocks | None:
        segments = self._segments(upload, length)
        if length <= segments.size:
            return segments.first(length)
        if not self._assembled(upload, segments, length):
            return None
        return self._get(self._raw(upload), 0, length)

    def publish(self, upload: str, length: int, scope: str, sha256: str) -> None:
        place, segments = self._place(scope, sha256), self._segments(upload, length)
        if length <= segments.size:
            with segments.path(0).open("rb") as file, answers_read():
                self._client.put_object(
                    Bucket=self._bucket, Key=place, Body=file, ContentMD5=_md5(segments.path(0)), ContentLength=length
                )
            return
        source = {"Bucket": self._bucket, "Key": self._raw(upload)}
        in_parts = TransferConfig(
            multipart_threshold=COPY_IN_PARTS, multipart_chunksize=COPY_IN_PARTS // 5, use_threads=False
        )
        with answers_read():
            self._client.copy(source, self._bucket, place, Config=in_parts)

    def put_all(self, scope: str, small: Mapping[str, Whole]) -> None:
        def put(named: tuple[str, Whole]) -> None:
            sha256, content = named[0], bytes(named[1].content)
            checked = b64encode(md5(content, usedforsecurity=False).digest()).decode()
            with answers_read():
                self._client.put_object(
                    Bucket=self._bucket, Key=self._place(scope, sha256), Body=content, ContentMD5=checked
                )

        with ThreadPoolExecutor(AT_ONCE) as sending:
            list(sending.map(put, small.items()))

    def discard(self, upload: str) -> None:
        """What lies in the bucket before what lies here: as long as that is here, it can be done again."""
        segments = self._segments(upload, 0)
        mark = segments.mark
        if mark is not None:
            with answers_read():
                self._abort(upload, mark)
                self._client.delete_object(Bucket=self._bucket, Key=self._raw(upload))
        segments.remove()

    def size(self, scope: str, sha256: str) -> int | None:
        return self._size(self._place(scope, sha256))

    def read(self, scope: str, sha256: str, start: int, stop: int) -> Blocks:
        found = self._get(self._place(scope, sha256), start, stop)
        if found is None:
            raise refusal("not-found", "the content is lost")
        return found

    def address(self, scope: str, sha256: str, disposition: str, media_type: str) -> str | None:
        if not self._redirect_seconds:
            return None
        wanted = {
            "Bucket": self._bucket,
            "Key": self._place(scope, sha256),
            "ResponseContentDisposition": disposition,
            "ResponseContentType": media_type,
        }
        return str(self._client.generate_presigned_url("get_object", wanted, ExpiresIn=self._redirect_seconds))

    def remove(self, scope: str, sha256: str) -> None:
        with answers_read():
            self._client.delete_object(Bucket=self._bucket, Key=self._place(scope, sha256))

    def free(self) -> None:
        return None

    def _send(self, upload: str, segments: Segments, length: int, promised: int) -> None:
        """Parts that are full, and promised, to the bucket; at the end of the upload, its last one as well."""
        if length <= segments.size:
            return
        full = segments.numbers() if promised == length else _before(segments.numbers(), promised // segments.size)
        for number in full:
            mark = segments.mark or self._begin_multipart(upload, segments)
            with segments.path(number).open("rb") as file, answers_read():
                self._client.upload_part(
                    Bucket=self._bucket,
                    Key=self._raw(upload),
                    UploadId=mark,
                    PartNumber=number + 1,
                    Body=file,
                    ContentMD5=_md5(segments.path(number)),
                )
            segments.path(number).unlink()

    def _begin_multipart(self, upload: str, segments: Segments) -> str:
        with answers_read():
            made = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._raw(upload))
        segments.keep_mark(str(made["UploadId"]))
        return str(made["UploadId"])

    def _assembled(self, upload: str, segments: Segments, length: int) -> bool:
        """Whether all of it is one object, now or from before."""
        if self._size(self._raw(upload)) == length:
            return True
        self._send(upload, segments, length, length)
        mark = segments.mark
        if mark is None:
            return False
        named = {"Bucket": self._bucket, "Key": self._raw(upload), "UploadId": mark}
        try:
            with answers_read():
                pages = self._client.get_paginator("list_parts").paginate(**named)
                parts = [part for page in pages for part in page.get("Parts", ())]
                if sum(part["Size"] for part in parts) != length:
                    return False
                told = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
                self._client.complete_multipart_upload(**named, MultipartUpload={"Parts": told})
        except ClientError as error:
            if is_missing(error):  # perhaps another has completed it meanwhile
                return self._size(self._raw(upload)) == length
            raise
        return True

    def _abort(self, upload: str, mark: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._raw(upload), UploadId=mark)
        except ClientError as error:
            if not is_missing(error):
                raise

    def _size(self, key: str) -> int | None:
        try:
            with answers_read():
                return int(self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def _get(self, key: str, start: int, stop: int) -> Blocks | None:
        ranged = {"Range": f"bytes={start}-{stop - 1}"} if stop > start else {}
        try:
            with answers_read():
                found = self._client.get_object(Bucket=self._bucket, Key=key, **ranged)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return _ObjectBlocks(found["Body"])

    def _segments(self, upload: str, length: int) -> Segments:
        return Segments(self._folder / upload, max(PART, -(-length // MOST_PARTS)))

    def _raw(self, upload: str) -> str:
        return f"{self._prefix}uploads/{upload}"

    def _place(self, scope: str, hashed: str) -> str:
        return f"{self._prefix}content/{sha256(scope.encode()).hexdigest()}/{hashed}"


class _ObjectBlocks:
    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with answers_read():
                block = self._body.read(BLOCK)
            if not block:
                return
            yield block

    def close(self) -> None:
        self._body.close()


def _before(numbers: list[int], end: int) -> list[int]:
    return [number for number in numbers if number < end]


def _md5(path: Path) -> str:
    """The check of what arrives that every such store knows."""
    hashed = md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            hashed.update(block)
    return b64encode(hashed.digest()).decode()
