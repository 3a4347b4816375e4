"""Downloads one file over HTTP: continued where it was cut (RFC 9110, 14.2 Range and 13.1.5 If-Range).

Links carry signatures. No message here holds a link or another library's text, and errors are raised `from None`,
so that a link is in no traceback either.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import NoReturn

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ReadTimeoutError
from urllib3.util import Retry

from data_contracts.errors import InputError
from jobs.acquisition.byte_progress import FileProgress
from jobs.acquisition.link_list import Link
from jobs.acquisition.part_file import Origin, PartFile
from jobs.acquisition.transfer_settings import LinksConfig

READ_BYTES = 1 << 20
PROGRESS_BYTES = 1 << 20  # an attempt that brings this many more is none of those `attempts` counts
LONGEST_WAIT = 120  # seconds
EXPIRED = frozenset({401, 403, 410})
WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class LinkExpired(InputError):
    """The publisher no longer honours a link."""


class Stopped(Exception):
    """Another download has ended the run."""


class Cut(Exception):
    """The attempt failed in a way that another may not. retry_after: seconds the server asks to wait."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class HttpDownloader:
    """Downloads files, each by any thread; `stop` ends them all."""

    def __init__(self, config: LinksConfig, stop: Event) -> None:
        self._stop = stop
        self._timeout = config.timeout_seconds
        self._attempts = config.attempts
        self._patience = Retry(
            total=config.attempts - 1,
            backoff_factor=config.first_wait_seconds / 2,  # doubled before it is first used
            backoff_jitter=config.first_wait_seconds,
            backoff_max=LONGEST_WAIT,
            retry_after_max=LONGEST_WAIT,
        )
        # These log whole addresses.
        for name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry"):
            logging.getLogger(name).addFilter(_without_record)

    def download(self, link: Link, target: Path, progress: FileProgress) -> None:
        """Download to `target`, which is there whole or not at all.

        Raises LinkExpired; InputError where trying again cannot help, or has not; Stopped.
        """
        part = PartFile(target)
        patience = self._patience
        with requests.Session() as session:
            while True:
                size = part.size
                try:
                    self._attempt(session, link, part, progress)
                    break
                except Cut as cut:
                    if part.size >= size + PROGRESS_BYTES:
                        patience = self._patience
                    try:
                        patience = patience.increment()
                    except MaxRetryError:
                        raise InputError(
                            f"{link.name}: {cut}, {self._attempts} times; run again later,"
                            f" {part.size} bytes are kept"
                        ) from None
                    self._stop.wait(cut.retry_after or patience.get_backoff_time())
        _refuse_other_content(part, link)
        part.finish()

    def _attempt(self, session: requests.Session, link: Link, part: PartFile, progress: FileProgress) -> None:
        """Bring the part to its full size, or raise."""
        if self._stop.is_set():
            raise Stopped
        origin = part.origin()
        if origin is not None and part.size == origin.size:
            progress.place(part.size, origin.size)
            return
        try:
            with session.get(
                link.url.get_secret_value(),
                headers=_asked(part.size, origin),
                stream=True,
                timeout=self._timeout,
            ) as response:
                _refuse_status(response, link)
                origin = _placed(response, link, part, origin)
                progress.place(part.size, origin.size)
                self._receive(response, part, progress)
        except (requests.Timeout, requests.ConnectionError, HTTPError) as error:
            raise Cut(_reason(error)) from None
        except (requests.RequestException, ValueError) as error:
            raise InputError(f"{link.name}: its link cannot be used ({type(error).__name__})") from None
        if origin.size is not None and part.size != origin.size:
            raise Cut("the connection was cut")

    def _receive(self, response: requests.Response, part: PartFile, progress: FileProgress) -> None:
        with part.append() as file:
            # read1 gives what has arrived: nothing that came before a cut is lost.
            while received := response.raw.read1(READ_BYTES, decode_content=False):
                file.write(received)
                progress.received(len(received))
                if self._stop.is_set():
                    raise Stopped


def _asked(size: int, origin: Origin | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if size and origin is not None and origin.validator is not None:
        headers |= {"Range": f"bytes={size}-", "If-Range": origin.validator}
    return headers


def _refuse_status(response: requests.Response, link: Link) -> None:
    status = response.status_code
    if status in EXPIRED:
        raise LinkExpired(f"{link.name}: its link has expired (HTTP {status})")
    if status in WORTH_RETRYING:
        raise Cut(f"the server answered HTTP {status}", _retry_after(response))
    if status not in (200, 206, 416):
        raise InputError(f"{link.name}: the server answered HTTP {status}; {link.remedy}")
    kind = response.headers.get("Content-Type", "")
    encoding = response.headers.get("Content-Encoding", "identity")
    if status != 416 and (kind.startswith("text/html") or encoding != "identity"):
        raise InputError(f"{link.name}: its link leads to a web page; {link.remedy}")


def _placed(response: requests.Response, link: Link, part: PartFile, origin: Origin | None) -> Origin:
    """What the bytes that follow are of, with the part cut to where they go."""
    if response.status_code == 200:
        size = _size(response.headers, link)
        answered = Origin(size=size, validator=_validator(response.headers))
        part.begin(answered)
        return answered
    matched = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code == 206 and matched and origin is not None:
        start, whole = matched.groups()
        same_file = whole == "*" or origin.size in (None, int(whole))
        if int(start) == part.size and same_file and _validator(response.headers) in (None, origin.validator):
            return origin
    part.discard()
    raise Cut("the server sent another part than it was asked for")


def _size(headers: Mapping[str, str], link: Link) -> int | None:
    """Size of the whole file, as the server or else the list says; None where only a checksum is known."""
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else link.size
    if size is None and link.md5 is None and link.sha256 is None:
        raise InputError(f"{link.name}: the server does not say its size; add its `size` to {link.stated_in}")
    if link.size is not None and size != link.size:
        raise InputError(
            f"{link.name}: the server has {size} bytes, {link.stated_in} says {link.size}; {link.remedy}"
        )
    return size


def _validator(headers: Mapping[str, str]) -> str | None:
    """Strong ETag, else date of the last change. A weak ETag does not promise the same bytes."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _retry_after(response: requests.Response) -> float | None:
    try:
        return Retry(retry_after_max=LONGEST_WAIT).get_retry_after(response.raw)
    except InvalidHeader:
        return None


def _refuse_other_content(part: PartFile, link: Link) -> None:
    # A part of an earlier run may be of a version that an earlier list spoke of.
    if link.size is not None and part.size != link.size:
        _refuse(part, link, f"{part.size} bytes", str(link.size))
    for algorithm, published in (("md5", link.md5), ("sha256", link.sha256)):
        if published is not None and (digest := part.digest(algorithm)) != published:
            _refuse(part, link, f"{algorithm} {digest}", published)


def _refuse(part: PartFile, link: Link, found: str, published: str) -> NoReturn:
    part.discard()
    raise InputError(
        f"{link.name}: received {found}, {link.stated_in} says {published}; run again, or {link.remedy}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, (requests.Timeout, ReadTimeoutError)):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted, or the secure connection broke"
    if isinstance(error, requests.ConnectionError):
        return "the server could not be reached"
    return "the connection was cut"


def _without_record(record: logging.LogRecord) -> bool:
    return False
