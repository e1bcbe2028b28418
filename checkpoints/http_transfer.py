"""Downloads one file over HTTP, going on where an earlier request stopped.

The file grows in a part, and a note beside it (`<part>.json`) says which URL, and which
version of what is there, the part is from; a part without a note is not used. RFC 9110
has the rules: section 14 for ranges, 13.1.5 for the condition that asks for one.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from checkpoints import files

_CHUNK_BYTES = 256 * 1024
_TRANSIENT_STATUS = {408, 425, 429}  # besides every 5xx; see RFC 9110, section 15

Progress = Callable[[int, int | None], None]


class DownloadError(Exception):
    """The archive could not be downloaded, or is not the expected one."""


class TransferError(Exception):
    """One request failed in a way that a further one may mend."""


@dataclass(frozen=True)
class Transfer:
    """One file to download.

    Attributes:
        url: its http or https address.
        part: the file that it grows in; its folder must exist.
        progress: called with the bytes so far (those of earlier requests included) and
            the bytes in all, None where the server does not say.
        timeout: seconds without an answer or without data that make a request fail.
        max_bytes: largest accepted size, in bytes.
    """

    url: str
    part: Path
    progress: Progress
    timeout: float
    max_bytes: int

    @property
    def note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def discard(self) -> None:
        """Forgets what has been downloaded."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def resume(transfer: Transfer) -> None:
    """Makes one request for what is missing, and adds what it brings to the part.

    Returns once the server has sent all that it announced; whether that is the wanted
    file is for the caller to check.

    Raises:
        TransferError: a further request may help; what has come is kept.
        DownloadError: it would not: the URL is invalid, or the server refuses, or sends
            a web page or a file that is too large.
        OSError: the part cannot be written.
    """
    offset, validator = _resume_point(transfer)
    headers = {"User-Agent": "irv2"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    try:
        address = urllib.parse.urlsplit(transfer.url)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise ValueError("expected http:// or https:// and a host")
        request = urllib.request.Request(transfer.url, headers=headers)
        response = urllib.request.urlopen(request, timeout=transfer.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # the part is not the beginning of this file
            transfer.discard()
            resume(transfer)
            return
        if error.code >= 500 or error.code in _TRANSIENT_STATUS:
            raise TransferError(f"HTTP status {error.code}") from error
        raise DownloadError(
            f"{transfer.url}: the server answers {error.code} {error.reason}; expected"
            " the archive: check the URL, or give that of a mirror (--url)"
        ) from error
    except (ValueError, http.client.InvalidURL) as error:
        raise DownloadError(f"{transfer.url!r} is not a valid URL: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _interruption(transfer, error) from error
    with response:
        _receive(transfer, response, offset)


def _resume_point(transfer: Transfer) -> tuple[int, str | None]:
    """How many bytes are there, and the validator of the file that they are from."""
    try:
        note = files.read_json(transfer.note)
        if note["url"] == transfer.url:
            return transfer.part.stat().st_size, _for_a_header(note["validator"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return 0, None


def _receive(
    transfer: Transfer, response: http.client.HTTPResponse, offset: int
) -> None:
    """Writes the body of an answer to the part, which has `offset` bytes so far."""
    if response.headers.get_content_type() == "text/html":
        raise DownloadError(
            f"{transfer.url}: the server sends a web page (text/html); expected the"
            " archive: check the URL, and whether the network wants a login"
        )
    received, total = 0, response.length
    if response.status == 206:
        span = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span.strip())
        if match is None or int(match[1]) != offset:
            transfer.discard()
            raise TransferError(f"range {span!r} instead of bytes {offset}-")
        received = offset
        if match[2] != "*":
            total = int(match[2])
        elif total is not None:
            total += offset
    _check_size(transfer, total or 0)
    if received == 0:
        transfer.discard()
        note = {"url": transfer.url, "validator": _validator(response)}
        files.write_json(transfer.note, note)
    with transfer.part.open("ab") as file:
        transfer.progress(received, total)
        for chunk in _chunks(transfer, response):
            received += len(chunk)
            _check_size(transfer, received)
            file.write(chunk)
            transfer.progress(received, total)
    if total is not None and received < total:
        raise TransferError(f"{received} bytes of the {total} promised")


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may hold: a strong ETag, else a date (RFC 9110, section 13.1.5)."""
    etag = response.headers.get("ETag", "")
    date = response.headers.get("Last-Modified", "")
    return _for_a_header(date if etag.startswith("W/") else etag or date)


def _for_a_header(value: str | None) -> str | None:
    return value if value and value.isascii() and value.isprintable() else None


def _chunks(transfer: Transfer, response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body; only reading it, not writing it, may fail with a TransferError."""
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _interruption(transfer, error) from error


def _interruption(transfer: Transfer, error: Exception) -> TransferError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        reason = f"no data for {transfer.timeout:g} seconds"
    return TransferError(str(reason) or type(reason).__name__)


def _check_size(transfer: Transfer, size: int) -> None:
    if size > transfer.max_bytes:
        transfer.discard()
        raise DownloadError(
            f"{transfer.url} has at least {size} bytes; expected at most"
            f" {transfer.max_bytes}: check the URL"
        )
