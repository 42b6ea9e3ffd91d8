"""Downloads one file over HTTPS: resumes, retries, and verifies size and SHA-256.

An unfinished download is ``NAME.part``; ``NAME.part.json`` has the address and the validator (ETag or date) of the version
that it is a part of. The next download of the same version continues it, in this process or a later one.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from gorggle_server.model_catalogue.catalogue import RemoteFile

CHUNK_BYTES = 2**18
MAX_FILE_BYTES = 8 * 2**30
TIMEOUT_S = 30.0
# Attempts in a row that receive nothing new.
MAX_ATTEMPTS = 5
BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DownloadError(Exception):
    """A file cannot be downloaded, or is not what its publisher states. Not part of the server's error tree: no call sees it."""


class _AttemptError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Observer:
    """Callbacks of a download.

    Attributes:
        report: called with a line of text for the user.
        show_progress: called with the bytes received and the total, None if unknown.
    """

    report: Callable[[str], None] = lambda _text: None
    show_progress: Callable[[int, int | None], None] = lambda _done, _total: None


@dataclass(frozen=True)
class Downloader:
    """Downloads files.

    Attributes:
        observer: for messages and progress.
        timeout_s: maximum time to connect, and without a byte.
        backoff_s: delay before the second attempt; it doubles with each further one.
    """

    observer: Observer = Observer()
    timeout_s: float = TIMEOUT_S
    backoff_s: float = BACKOFF_S

    def download(self, file: RemoteFile, target: Path, *, copies: int = 1) -> str:
        """Download a file to ``target`` and return its SHA-256 in hexadecimal.

        Args:
            file: address, and size and SHA-256 to verify if they are published.
            target: the file to write; a complete one is verified and kept.
            copies: how many files of this size the disk must have space for.

        Raises:
            DownloadError: the server refuses, fails repeatedly or sends another file; or the disk is full.
        """
        check_url(file.url)
        part = _PartialFile(target)
        if not target.exists():
            self._receive_all(file, part, copies)
            part.finish()
        return _verify(file, target)

    def _receive_all(self, file: RemoteFile, part: _PartialFile, copies: int) -> None:
        failures, received_bytes = 0, part.size_bytes
        while True:
            try:
                self._receive(file, part, copies)
                return
            except _AttemptError as error:
                failures = 1 if part.size_bytes > received_bytes else failures + 1
                received_bytes = max(received_bytes, part.size_bytes)
                if failures == MAX_ATTEMPTS:
                    raise DownloadError(
                        f"{file.url}: {error}; gave up after {failures} attempts. {part.size_bytes} bytes are kept: run "
                        "the command again to continue"
                    ) from error
                delay_s = min(max(self.backoff_s * 2 ** (failures - 1), error.retry_after_s), MAX_BACKOFF_S)
                self.observer.report(f"{file.name}: {error}; next attempt in {delay_s:g} s")
                time.sleep(delay_s)

    def _receive(self, file: RemoteFile, part: _PartialFile, copies: int) -> None:
        """Receive the missing bytes of a file in one request.

        Raises:
            _AttemptError: the file is still incomplete; what was received is kept.
        """
        if part.is_complete(file.url):
            return
        offset, validator = part.get_resume_point(file.url)
        request = urllib.request.Request(file.url, headers={"User-Agent": "gorggle"})  # noqa: S310  check_url() has checked it
        if offset:
            request.add_header("Range", f"bytes={offset}-")
            request.add_header("If-Range", validator)
        with self._open(request, part) as response:
            offset = _parse_offset(response, offset, part)
            total_bytes = _parse_total(response, offset)
            if file.size_bytes is not None and total_bytes not in {None, file.size_bytes}:
                part.discard()
                raise DownloadError(
                    f"{file.url} has {total_bytes} bytes; the catalogue states {file.size_bytes}. The download was deleted"
                )
            total_bytes = total_bytes if file.size_bytes is None else file.size_bytes
            check_free_space(part.path.parent, (total_bytes or 0) * copies - offset)
            part.begin(file.url, _get_validator(response), offset, total_bytes)
            self._copy(response, part, offset, total_bytes)

    def _open(self, request: urllib.request.Request, part: _PartialFile) -> Any:
        handlers: list[urllib.request.BaseHandler] = [_SecureRedirectHandler()]
        if is_loopback(request.full_url):
            handlers.append(urllib.request.ProxyHandler({}))
        url = request.full_url
        try:
            return urllib.request.build_opener(*handlers).open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.discard()
                raise _AttemptError(
                    "the server cannot continue the partial download; starting again"
                ) from error
            if error.code in _RETRIED_STATUSES:
                retry_after_s = _parse_retry_after(error.headers.get("Retry-After"))
                raise _AttemptError(
                    f"the server answered {error.code} {error.reason}", retry_after_s
                ) from error
            raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DownloadError(
                    f"{url}: the server's certificate is not valid: {error.reason.verify_message}"
                ) from error
            raise _AttemptError(f"no connection: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _AttemptError(_describe(error)) from error

    def _copy(self, response: Any, part: _PartialFile, offset: int, total_bytes: int | None) -> None:
        limit_bytes = MAX_FILE_BYTES if total_bytes is None else total_bytes
        done_bytes = offset
        with part.open(offset) as file:
            while done_bytes <= limit_bytes:
                try:
                    chunk = response.read(CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise _AttemptError(_describe(error)) from error
                if not chunk:
                    break
                _write(file, chunk, part.path)
                done_bytes += len(chunk)
                self.observer.show_progress(done_bytes, total_bytes)
        if done_bytes > limit_bytes:
            part.discard()
            raise DownloadError(
                f"{response.url} has more than the expected {limit_bytes} bytes. The download was deleted"
            )
        if total_bytes is not None and done_bytes < total_bytes:
            raise _AttemptError(f"the connection was closed after {done_bytes} of {total_bytes} bytes")


class _PartialFile:
    """The received part of a file, and the version of the file that it belongs to."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._target = target
        self._version_path = target.with_name(f"{target.name}.part.json")

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def get_resume_point(self, url: str) -> tuple[int, str]:
        """Return the offset to continue at and the validator of the version; (0, "") to start again."""
        validator = self._read_version(url).get("validator")
        return (self.size_bytes, validator) if validator else (0, "")

    def is_complete(self, url: str) -> bool:
        """Return whether every byte of the version was received."""
        return self.path.exists() and self._read_version(url).get("size_bytes") == self.size_bytes

    def begin(self, url: str, validator: str, offset: int, total_bytes: int | None) -> None:
        """Record the version that is about to be received; without an offset, drop what there is."""
        version = {"url": url, "validator": validator, "size_bytes": total_bytes}
        with _convert_disk_errors(self.path):
            if not offset:
                self.discard()
            self._version_path.write_text(json.dumps(version), encoding="utf-8")

    def _read_version(self, url: str) -> dict[str, Any]:
        """Return the recorded version; empty if there is none, or of another address."""
        with contextlib.suppress(OSError, ValueError):
            version = json.loads(self._version_path.read_text(encoding="utf-8"))
            if isinstance(version, dict) and version.get("url") == url:
                return version
        return {}

    def open(self, offset: int) -> IO[bytes]:
        """Open the file for writing at its end, unbuffered, so that every received byte survives a kill."""
        with _convert_disk_errors(self.path):
            file = self.path.open("ab", buffering=0)
            file.truncate(offset)
            return file

    def discard(self) -> None:
        """Delete the received part."""
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the complete file its final name."""
        with _convert_disk_errors(self.path), self.path.open("rb") as file:
            os.fsync(file.fileno())
            self.path.replace(self._target)
            self._version_path.unlink(missing_ok=True)


class _SecureRedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTPS only; plain HTTP stays on the loopback interface."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        stays_local = _is_plain_loopback(req.full_url) and _is_plain_loopback(newurl)
        if urlsplit(newurl).scheme != "https" and not stays_local:
            raise DownloadError(f"{req.full_url} redirects to {newurl}: only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Check that an address uses HTTPS, or plain HTTP on the loopback interface.

    Raises:
        DownloadError: it does not.
    """
    parts = urlsplit(url)
    if not (parts.scheme == "https" and parts.hostname) and not _is_plain_loopback(url):
        raise DownloadError(f"{url}: models are downloaded over https only (http is allowed for 127.0.0.1)")


def is_loopback(url: str) -> bool:
    """Return whether the host of an address is on the loopback interface."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_plain_loopback(url: str) -> bool:
    return urlsplit(url).scheme == "http" and is_loopback(url)


def check_free_space(folder: Path, required_bytes: int) -> None:
    """Check that a folder's disk has space.

    Raises:
        DownloadError: it has not.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < required_bytes:
        raise DownloadError(
            f"not enough space in {folder}: {required_bytes / 1e6:,.1f} MB are needed, {free_bytes / 1e6:,.1f} MB are free. "
            "Free some, or choose another folder with --model-dir"
        )


def _verify(file: RemoteFile, path: Path) -> str:
    """Return the SHA-256 of a complete file; delete the file if it is not the published one."""
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    problem = ""
    if file.size_bytes is not None and size_bytes != file.size_bytes:
        problem = f"has {size_bytes} bytes; the catalogue states {file.size_bytes}"
    elif file.sha256 is not None and digest != file.sha256:
        problem = f"has SHA-256 {digest}; the catalogue states {file.sha256}"
    if problem:
        path.unlink()
        raise DownloadError(f"{file.url} {problem}. The download was deleted: try again, or another mirror")
    return digest


def _parse_offset(response: Any, offset: int, part: _PartialFile) -> int:
    """Return where the response's bytes begin in the file: 0 if the server sends all of it."""
    if response.status == http.HTTPStatus.OK:
        return 0
    content_range = response.headers.get("Content-Range", "")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and offset:
        if content_range.startswith(f"bytes {offset}-"):
            return offset
        part.discard()
        raise _AttemptError(f"the server sent the range {content_range!r}, not from byte {offset}")
    raise DownloadError(f"{response.url}: the server answered {response.status} {response.reason}")


def _parse_total(response: Any, offset: int) -> int | None:
    """Return the size of the whole file, or None if the server does not state it."""
    length = response.headers.get("Content-Length", "")
    if match := re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", "")):
        return int(match[1])
    return offset + int(length) if length.isdecimal() else None


def _get_validator(response: Any) -> str:
    """Return what identifies the file's version in If-Range: a strong ETag, else its date, else nothing."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _parse_retry_after(value: str | None) -> float:
    """Return the delay of a Retry-After header in seconds; 0 if it is absent or invalid."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _write(file: IO[bytes], chunk: bytes, path: Path) -> None:
    view = memoryview(chunk)
    with _convert_disk_errors(path):
        while view:
            view = view[file.write(view) :]


@contextlib.contextmanager
def _convert_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise DownloadError(
                f"the disk of {path.parent} is full ({error.strerror}). The partial download is kept: free some space and "
                "run the command again to continue"
            ) from error
        raise DownloadError(f"{path} cannot be written: {error.strerror or error}") from error


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server sent nothing for too long"
    return f"the connection failed: {error or type(error).__name__}"
