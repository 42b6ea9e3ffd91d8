"""Downloads from a local HTTP server: resumption, retries, verification, full disks."""

from __future__ import annotations

import hashlib
import random
import resource
import shutil
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from gorggle_server.model_catalogue import download
from gorggle_server.model_catalogue.catalogue import RemoteFile
from gorggle_server.model_catalogue.download import Downloader, DownloadError, Observer
from tests.model_catalogue.file_server import Fault, FileServer, serve_files

CONTENT = random.Random(1).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(server: FileServer) -> FileServer:
    server.files["/model.bin"] = CONTENT
    return server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.bin"


def fetch(
    server: FileServer, target: Path, *, size_bytes: int | None = None, sha256: str | None = None
) -> str:
    file = RemoteFile("model.bin", f"{server.url}/model.bin", size_bytes, sha256)
    return Downloader(backoff_s=0, timeout_s=10).download(file, target)


def list_names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_is_downloaded_and_verified(server: FileServer, target: Path) -> None:
    assert fetch(server, target, size_bytes=len(CONTENT), sha256=SHA256) == SHA256
    assert target.read_bytes() == CONTENT
    assert list_names(target) == ["model.bin"]


def test_the_sha256_is_returned_if_none_is_published(server: FileServer, target: Path) -> None:
    assert fetch(server, target) == SHA256


def test_a_broken_connection_is_resumed_at_the_last_byte(server: FileServer, target: Path) -> None:
    server.faults = [Fault(close_after=300_000), Fault(close_after=0), Fault(close_after=100_000)]
    assert fetch(server, target) == SHA256
    assert server.ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=400000-"]
    assert all("If-Range" in headers for headers in server.requests[1:])


def test_a_download_that_gave_up_is_continued_by_the_next_one(server: FileServer, target: Path) -> None:
    server.faults = [Fault(close_after=600_000), *[Fault(close_after=0)] * 4]
    with pytest.raises(DownloadError, match=r"gave up after 5 attempts\. 600000 bytes are kept"):
        fetch(server, target)
    assert not target.exists()
    assert fetch(server, target, sha256=SHA256) == SHA256
    assert server.ranges[-1] == "bytes=600000-"


def test_a_complete_part_is_not_requested_again(server: FileServer, target: Path) -> None:
    server.faults = [Fault(close_after=600_000), *[Fault(close_after=0)] * 4]
    with pytest.raises(DownloadError):
        fetch(server, target)
    (target.parent / "model.bin.part").write_bytes(CONTENT)
    requests = len(server.requests)
    assert fetch(server, target, sha256=SHA256) == SHA256
    assert len(server.requests) == requests


def test_another_version_of_the_file_is_downloaded_from_its_beginning(
    server: FileServer, target: Path
) -> None:
    server.faults = [Fault(close_after=600_000), *[Fault(close_after=0)] * 4]
    with pytest.raises(DownloadError):
        fetch(server, target)
    server.files["/model.bin"] = CONTENT[::-1]
    fetch(server, target)
    assert target.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("fault", ["ranges", "etags"])
def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(
    server: FileServer, target: Path, fault: str
) -> None:
    server.supports_ranges = fault != "ranges"
    server.has_etags = fault != "etags"
    server.faults = [Fault(close_after=600_000)]
    assert fetch(server, target) == SHA256


def test_a_server_that_always_breaks_off_early_is_given_up(server: FileServer, target: Path) -> None:
    server.supports_ranges = False
    server.faults = [Fault(close_after=600_000)] * 20
    with pytest.raises(DownloadError, match="gave up after 5 attempts"):
        fetch(server, target)
    assert len(server.requests) <= download.MAX_ATTEMPTS + 1


def test_an_unusable_range_starts_again(server: FileServer, target: Path) -> None:
    server.faults = [Fault(close_after=600_000), Fault(status=416)]
    assert fetch(server, target) == SHA256
    assert server.ranges[-1] is None


def test_another_range_than_the_requested_one_starts_again(server: FileServer, target: Path) -> None:
    wrong = Fault(headers={"Content-Range": "bytes 5-999999/1000000"})
    server.faults = [Fault(close_after=600_000), wrong]
    assert fetch(server, target) == SHA256
    assert server.ranges[-1] is None


def test_a_wrong_hash_deletes_the_download(server: FileServer, target: Path) -> None:
    with pytest.raises(DownloadError, match=f"has SHA-256 {SHA256}; the catalogue states 0000"):
        fetch(server, target, sha256="0" * 64)
    assert list_names(target) == []


def test_a_wrong_size_is_refused_before_the_download(server: FileServer, target: Path) -> None:
    with pytest.raises(DownloadError, match="has 1000000 bytes; the catalogue states 999999"):
        fetch(server, target, size_bytes=999_999)
    assert list_names(target) == []


def test_a_damaged_complete_file_is_deleted(server: FileServer, target: Path) -> None:
    target.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="has 7 bytes"):
        fetch(server, target, size_bytes=len(CONTENT), sha256=SHA256)
    assert fetch(server, target, size_bytes=len(CONTENT), sha256=SHA256) == SHA256


def test_a_missing_file_is_reported_without_further_attempts(server: FileServer, target: Path) -> None:
    server.files.clear()
    with pytest.raises(DownloadError, match="the server answered 404 Not Found"):
        fetch(server, target)
    assert len(server.requests) == 1


def test_an_overloaded_server_is_asked_again_after_its_delay(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr(download.time, "sleep", delays.append)
    server.faults = [Fault(status=503, headers={"Retry-After": "7"}), Fault(status=429)]
    assert fetch(server, target) == SHA256
    assert delays == [7, 0]


def test_a_silent_server_is_given_up_after_the_timeout(server: FileServer, target: Path) -> None:
    never = threading.Event()
    server.faults = [Fault(wait_for=never)] * 5
    file = RemoteFile("model.bin", f"{server.url}/model.bin")
    texts: list[str] = []
    with pytest.raises(DownloadError, match="sent nothing for too long"):
        Downloader(Observer(texts.append), timeout_s=0.05, backoff_s=0).download(file, target)
    never.set()
    assert len(texts) == download.MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "location", ["http://model.example/model.bin", "ftp://127.0.0.1/model.bin", "file:///etc/passwd"]
)
def test_a_redirect_to_another_scheme_is_refused(server: FileServer, target: Path, location: str) -> None:
    server.faults = [Fault(status=302, headers={"Location": location})]
    with pytest.raises(DownloadError, match=r"only https is followed|302"):
        fetch(server, target)
    assert list_names(target) == []


def test_a_redirect_on_the_loopback_interface_keeps_the_range(server: FileServer, target: Path) -> None:
    server.files["/elsewhere"] = CONTENT
    redirect = Fault(status=302, headers={"Location": f"{server.url}/elsewhere"})
    server.faults = [redirect, Fault(close_after=500_000), redirect]
    assert fetch(server, target) == SHA256
    assert server.ranges[-2:] == ["bytes=500000-"] * 2


@pytest.mark.parametrize(
    "url", ["http://model.example/a", "ftp://model.example/a", "model.bin", "https:///a"]
)
def test_an_insecure_address_is_refused(target: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="over https only"):
        Downloader().download(RemoteFile("a", url), target)


def test_https_requires_a_certificate_that_is_trusted(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serve_files(context) as server:
        server.files["/model.bin"] = CONTENT
        with pytest.raises(DownloadError, match="certificate is not valid"):
            fetch(server, target)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        server.faults = [Fault(status=302, headers={"Location": "http://127.0.0.1/model.bin"})]
        with pytest.raises(DownloadError, match="only https is followed"):
            fetch(server, target)
        assert fetch(server, target) == SHA256


def test_a_disk_without_space_is_reported_before_the_download(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=999_999))
    with pytest.raises(DownloadError, match=r"not enough space .* 1\.0 MB are needed"):
        fetch(server, target)
    assert list_names(target) == []


def test_a_disk_that_fills_up_keeps_what_was_received(server: FileServer, target: Path) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(DownloadError, match=r"is full .* run the command again to continue"):
            fetch(server, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_soft, hard))
    assert (target.parent / "model.bin.part").stat().st_size == 400_000
    assert fetch(server, target) == SHA256
    assert server.ranges == [None, "bytes=400000-"]


def test_progress_counts_the_resumed_part(server: FileServer, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    server.faults = [Fault(close_after=600_000)]
    file = RemoteFile("model.bin", f"{server.url}/model.bin")
    Downloader(Observer(show_progress=lambda *figures: seen.append(figures)), backoff_s=0).download(
        file, target
    )
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _total in seen] == sorted(done for done, _total in seen)
