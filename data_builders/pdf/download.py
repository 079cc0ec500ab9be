"""Downloads files from a list of links: politely, with retries, resuming where it broke off, and nothing but PDFs.

Redirects are followed within one host only. A reply is refused if it is too large, is no PDF by its type or its first
bytes, or redirects in a circle. Temporary failures (time-outs, broken connections, 408, 429, 5xx) are tried again with
growing pauses, or after the `Retry-After` that the server asks for. A partial file is kept, and its download resumed
if the server confirms (`If-Range`) that the file has not changed.
"""

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from .reading import look

USER_AGENT = "scratchgpt-data-builder/0.1 (reads PDFs named in a manifest)"
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_REDIRECTS = 5
CHUNK = 1 << 16


class RefusedError(Exception):
    """Trying again would not help."""


class TransientError(Exception):
    """Worth another try, `after` seconds if the server said so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class _PartError(Exception):
    """The part that is there does not fit the file."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@dataclass(kw_only=True)
class Downloader:
    max_bytes: int = 200 * 2**20
    attempts: int = 5
    seconds_between: float = 3.0
    """Between two requests to one host."""
    timeout: float = 30.0
    """Without a byte."""
    deadline: float = 900.0
    """For one try of one file: a server that sends a byte a second is not waited for."""
    sleep: Callable[[float], None] = time.sleep
    last: dict[str, float] = field(default_factory=dict)

    def get(self, url: str, file: Path) -> str:
        """Downloads `url` to `file`, unless it is there already.

        Returns:
            Why there is no file; empty on success.
        """
        if file.is_file() and not look(file):
            return ""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return f"not a link to a web page: {url}"
        file.parent.mkdir(parents=True, exist_ok=True)
        reason = ""
        for attempt in range(self.attempts):
            try:
                self._try(url, file)
                return ""
            except RefusedError as error:
                _discard(file)
                return f"refused: {error}"
            except _PartError:
                _discard(file)
                reason, pause = "the part that was there did not fit the file", 0.0
            except TransientError as error:
                reason = str(error)
                pause = min(300.0, error.after if error.after is not None else 2.0 * 2**attempt)
            except (OSError, http.client.HTTPException) as error:
                reason, pause = f"{type(error).__name__}: {error}", 2.0 * 2**attempt
            if attempt + 1 < self.attempts:
                self.sleep(pause)
        return f"given up after {self.attempts} tries: {reason}"

    def _wait(self, host: str) -> None:
        since = time.monotonic() - self.last.get(host, -1e9)
        if since < self.seconds_between:
            self.sleep(self.seconds_between - since)
        self.last[host] = time.monotonic()

    def _try(self, url: str, file: Path) -> None:
        part, validator = _part(file), _validator(file)
        size = part.stat().st_size if part.is_file() else 0
        known = validator.read_text(encoding="utf-8") if validator.is_file() else ""
        headers = {"User-Agent": USER_AGENT, "Accept": "application/pdf", "Accept-Encoding": "identity"}
        if size and known:
            headers |= {"Range": f"bytes={size}-", "If-Range": known}
        else:
            size = 0
        with self._open(url, headers) as reply:
            status = reply.status
            if status == 206:
                found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
                if not found or int(found[1]) != size:
                    _discard(file)
                    raise TransientError("the server sent another part than was asked for")
            elif status == 200:
                size = 0
            else:
                raise RefusedError(f"unexpected status {status}")
            kind = reply.headers.get_content_type()
            if kind.startswith(("text/", "image/", "video/")) or kind.endswith(("json", "xml")):
                raise RefusedError(f"the server sent {kind}, not a PDF")
            announced = reply.headers.get("Content-Length", "")
            total = size + int(announced) if announced.isdigit() else None
            if total and total > self.max_bytes:
                raise RefusedError(f"{total:,} bytes, more than {self.max_bytes:,}")
            if not size:
                etag = reply.headers.get("ETag", "")
                confirmed = etag if etag and not etag.startswith("W/") else reply.headers.get("Last-Modified", "")
                validator.write_text(confirmed, encoding="utf-8")
            size = self._save(reply, part, size)
        if total is not None and size < total:
            raise TransientError(f"the connection broke after {size:,} of {total:,} bytes")
        if problem := look(part):
            if problem.startswith("truncated") and total is None:
                raise TransientError(problem)
            raise RefusedError(problem)
        part.replace(file)
        validator.unlink(missing_ok=True)

    def _save(self, reply: http.client.HTTPResponse, part: Path, size: int) -> int:
        end = time.monotonic() + self.deadline
        with part.open("ab" if size else "wb") as stream:
            while True:
                try:
                    chunk = reply.read1(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise TransientError(f"the connection broke after {size:,} bytes ({error})") from error
                if not chunk:
                    return size
                if not size and b"%PDF-" not in chunk[:1024] and len(chunk) >= 8:
                    raise RefusedError("what came is not a PDF")
                size += len(chunk)
                if size > self.max_bytes:
                    raise RefusedError(f"more than {self.max_bytes:,} bytes")
                stream.write(chunk)
                if time.monotonic() > end:
                    raise TransientError(f"not complete after {self.deadline:g} seconds")

    def _open(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        opener = urllib.request.build_opener(_NoRedirect)
        host, seen = urlsplit(url).hostname, {url}
        for _ in range(MAX_REDIRECTS + 1):
            self._wait(host or "")
            try:
                return opener.open(urllib.request.Request(url, headers=headers), timeout=self.timeout)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code in (301, 302, 303, 307, 308):
                        target = urljoin(url, error.headers.get("Location", ""))
                        parts = urlsplit(target)
                        if parts.hostname != host or parts.scheme not in ("https", urlsplit(url).scheme):
                            raise RefusedError(f"redirected to another host: {parts.hostname or target}") from error
                        if target in seen:
                            raise RefusedError("redirected in a circle") from error
                        seen.add(target)
                        url = target
                        continue
                    if error.code == 416:
                        raise _PartError from error
                    if error.code in TRANSIENT:
                        after = error.headers.get("Retry-After", "")
                        wait = float(after) if after.isdigit() else None
                        raise TransientError(f"status {error.code}", wait) from error
                    raise RefusedError(f"status {error.code}") from error
            except (urllib.error.URLError, TimeoutError, socket.gaierror) as error:
                raise TransientError(
                    str(error.reason if isinstance(error, urllib.error.URLError) else error)
                ) from error
        raise RefusedError(f"more than {MAX_REDIRECTS} redirects")


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _validator(file: Path) -> Path:
    return file.with_name(file.name + ".part.version")


def _discard(file: Path) -> None:
    _part(file).unlink(missing_ok=True)
    _validator(file).unlink(missing_ok=True)


def file_name(title: str, url: str) -> str:
    """A name for the file of a link: the last part of its path.

    Raises:
        ValueError: for a name that leaves its folder or is no name.
    """
    name = urlsplit(url).path.rsplit("/", 1)[-1]
    name = name if name.lower().endswith(".pdf") else name + ".pdf"
    if "%" in name or ".." in urlsplit(url).path.split("/") or not re.fullmatch(r"[\w][\w.+-]{0,150}", name):
        raise ValueError(f"{title!r}: {url} does not end in a plain file name")
    return name
