"""Downloads against a server on this machine: whole, wrong, cut short, refused, absent, cached."""

import contextlib
import hashlib
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphnn.keras.datasets import download, mnist
from graphnn.keras.datasets.download import DownloadError, get_file

WRONG = "0" * 64


@dataclass
class Site:
    """What the server answers, and how often it was asked."""

    content: bytes
    address: str = ""
    status: int = 200
    announced: int | None = None
    requests: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def small_mnist() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (20, 28, 28), np.uint8),
        "y_train": rng.integers(0, 10, 20, np.uint8),
        "x_test": rng.integers(0, 256, (5, 28, 28), np.uint8),
        "y_test": rng.integers(0, 10, 5, np.uint8),
    }


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **small_mnist())
    site = Site(buffer.getvalue())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            self.send_response(site.status)
            length = len(site.content) if site.announced is None else site.announced
            self.send_header("Content-Length", str(length))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(site.content)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}/mnist.npz"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with mnist pointed at the local server."""
    monkeypatch.setenv("GRAPHNN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(mnist, "URL", site.address)
    monkeypatch.setattr(mnist, "SHA256", site.sha256)
    return tmp_path / "home"


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_fetches_once(site: Site, home: Path) -> None:
    for _ in range(2):
        (x_train, y_train), (x_test, y_test) = mnist.load_data()
        loaded = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        for name, expected in small_mnist().items():
            np.testing.assert_array_equal(loaded[name], expected)
            assert loaded[name].dtype == np.uint8
    assert site.requests == ["/mnist.npz"]
    assert files_below(home) == ["mnist.npz"]


def test_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"Wrong checksum.*{WRONG}.*{site.sha256}"):
        get_file(site.address, WRONG, tmp_path / "file")
    assert files_below(tmp_path) == []


def test_cut_short_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.announced = len(site.content) + 100
    with pytest.raises(DownloadError, match=r"cut short|Cannot fetch"):
        get_file(site.address, site.sha256, tmp_path / "file")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("status", [404, 500, 503])
def test_error_answer_leaves_nothing(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(DownloadError, match=f"answered {status}"):
        get_file(site.address, site.sha256, tmp_path / "file")
    assert files_below(tmp_path) == []


def test_damaged_file_is_fetched_again(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(site.content[:-1])
    assert get_file(site.address, site.sha256.upper(), target).read_bytes() == site.content


def test_failure_keeps_the_old_file(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    site.status = 500
    with pytest.raises(DownloadError):
        get_file(site.address, site.sha256, target)
    assert target.read_bytes() == b"old"
    assert files_below(tmp_path) == ["file"]


def test_interrupt_leaves_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(url: str, file: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_file(site.address, site.sha256, tmp_path / "file")
    assert files_below(tmp_path) == []


def test_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(DownloadError, match="Cannot fetch"):
        get_file(site.address, site.sha256, tmp_path / "file" / "below")


def test_offline_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 1 of this machine: nothing listens there.
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:1/mnist.npz")
    place = re.escape(str(home / "datasets" / "mnist.npz"))
    with pytest.raises(DownloadError, match=rf"Cannot reach.*at {place}.*load_data\(path=") as info:
        mnist.load_data()
    assert "\n" not in str(info.value)
    assert files_below(home) == []


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="http://"):
        get_file("file:///etc/hosts", WRONG, tmp_path / "file")


def test_cache_folder_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHNN_HOME", raising=False)
    assert download.cache_folder() == Path.home() / ".graphnn" / "datasets"


def test_local_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **small_mnist())
    (x_train, _), (_, y_test) = mnist.load_data(path=tmp_path / "own.npz")
    assert x_train.shape == (20, 28, 28)
    assert y_test.shape == (5,)


def test_local_file_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file"):
        mnist.load_data(path=tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no arrays here")
    with pytest.raises(ValueError, match=r"not an \.npz file"):
        mnist.load_data(path=str(tmp_path / "text.npz"))
    np.savez(tmp_path / "part.npz", x_train=np.zeros(3))
    with pytest.raises(ValueError, match=r"'y_train', 'x_test', 'y_test'\] are missing"):
        mnist.load_data(path=tmp_path / "part.npz")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    arrays = small_mnist()
    np.savez(tmp_path / "objects.npz", **{**arrays, "x_train": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        mnist.load_data(path=tmp_path / "objects.npz")
