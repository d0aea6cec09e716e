"""Bytes: a local folder, S3, Google Cloud Storage or Azure, by obstore (https://developmentseed.org/obstore)."""

from collections.abc import AsyncIterator
from pathlib import Path

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

PART_BYTES = 5 * 1024 * 1024  # the least S3 takes for a part but the last
PARTS_AT_ONCE = 2  # bounds the memory of an upload


class BlobMissing(Exception):
    """No blob has this key."""


class Blobs:
    """Keys are relative paths. Nothing is seen under a key until it is whole."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str) -> "Blobs":
        """`s3://`, `gs://`, `az://` and `memory://` with credentials from the environment; else a folder, made."""
        if "://" in url and not url.startswith("file://"):
            return cls(from_url(url))
        return cls(LocalStore(Path(url.removeprefix("file://")).absolute(), mkdir=True))

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store what the iterator gives. If it raises, nothing is stored.

        Raises:
            Exception: that of `chunks`.
        """
        await obstore.put_async(
            self._store, key, chunks, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )

    async def put(self, key: str, body: bytes) -> None:
        """Store bytes, replacing what is there."""
        await obstore.put_async(self._store, key, body, use_multipart=False)

    async def get(self, key: str) -> bytes:
        """All bytes.

        Raises:
            BlobMissing: no such key.
        """
        try:
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
        except (NotFoundError, FileNotFoundError) as error:
            raise BlobMissing(key) from error

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """The bytes in chunks.

        Raises:
            BlobMissing: no such key.
        """
        try:
            found = await obstore.get_async(self._store, key)
        except (NotFoundError, FileNotFoundError) as error:
            raise BlobMissing(key) from error
        async for chunk in found.stream(min_chunk_size=1024 * 1024):
            yield bytes(chunk)

    async def size(self, key: str) -> int:
        """Bytes.

        Raises:
            BlobMissing: no such key.
        """
        try:
            return (await obstore.head_async(self._store, key))["size"]
        except (NotFoundError, FileNotFoundError) as error:
            raise BlobMissing(key) from error

    async def exists(self, key: str) -> bool:
        """Whether the key has a blob."""
        try:
            await self.size(key)
        except BlobMissing:
            return False
        return True

    async def download(self, key: str, path: Path) -> None:
        """Write the bytes to a file that appears when it is whole.

        Raises:
            BlobMissing: no such key.
        """
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                async for chunk in self.stream(key):
                    file.write(chunk)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    async def move(self, source: str, target: str) -> None:
        """Rename, replacing what is there.

        Raises:
            BlobMissing: no such source.
        """
        try:
            await obstore.rename_async(self._store, source, target, overwrite=True)
        except (NotFoundError, FileNotFoundError) as error:
            raise BlobMissing(source) from error

    async def delete(self, key: str) -> None:
        """Delete; a missing one is no error."""
        try:
            await obstore.delete_async(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return
