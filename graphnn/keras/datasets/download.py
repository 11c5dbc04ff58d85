"""Fetch a file once: checked by SHA-256, written whole or not at all, kept in a cache folder."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18


class DownloadError(OSError):
    """A file could not be fetched, or is not the one that was asked for."""


def cache_folder() -> Path:
    """Where downloaded data sets are kept: `$GRAPHNN_HOME/datasets`, or `~/.graphnn/datasets`."""
    home = os.environ.get("GRAPHNN_HOME")
    return (Path(home) if home else Path.home() / ".graphnn") / "datasets"


def get_file(url: str, sha256: str, path: str | os.PathLike[str]) -> Path:
    """The file at `path`, downloaded from `url` unless it is there already with that checksum.

    Args:
        url: an http or https address. Proxies are taken from the environment.
        sha256: the expected SHA-256 of the content, 64 hexadecimal digits.
        path: where to keep the file; its folder is made if need be.

    Returns:
        `path`, holding exactly the content with that checksum.

    Raises:
        ValueError: the address is not http or https.
        DownloadError: no connection, an error answer, a content cut short, a wrong checksum, or a
            folder that cannot be written. A file that was at `path` before stays as it was.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://; received {url!r}")
    target = Path(path)
    if target.is_file() and file_sha256(target) == sha256.lower():
        return target
    try:
        with _written_whole(target) as file:
            received = _fetch(url, file)
            if received != sha256.lower():
                raise DownloadError(
                    f"Wrong checksum of {url}: expected SHA-256 {sha256.lower()}, got {received}"
                )
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url} answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise DownloadError(f"Cannot reach {url}: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise DownloadError(f"Cannot fetch {url} to {target}: {error}") from error
    return target


def file_sha256(path: Path) -> str:
    """SHA-256 of the content of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _written_whole(target: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `target` that takes its name on success and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(name, target)
    except BaseException:  # Ctrl-C must leave nothing behind either
        Path(name).unlink(missing_ok=True)
        raise


def _fetch(url: str, file: BinaryIO) -> str:
    """Copy the content of `url` to `file`; its SHA-256."""
    digest = hashlib.sha256()
    received = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        expected = _length(response)
        with _progress(url, expected) as advance:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                advance(len(chunk))
    if expected is not None and received != expected:
        raise DownloadError(f"{url} was cut short: {received} of {expected} bytes arrived")
    return digest.hexdigest()


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length")
    return int(text) if text and text.isdigit() else None


@contextmanager
def _progress(url: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    # disable=None: tqdm stays silent unless stderr is a terminal.
    name = url.rsplit("/", 1)[-1]
    with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None) as bar:
        yield bar.update
