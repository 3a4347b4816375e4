"""Files by links, several at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from pydantic import SecretStr

from data_contracts.errors import InputError
from jobs.acquisition.byte_progress import ByteProgress
from jobs.acquisition.http_download import HttpDownloader, LinkExpired
from jobs.acquisition.link_list import Link, listed, read_links
from jobs.acquisition.transfer_settings import DataLinks, LinksConfig
from jobs.runner.context import StageContext


def fetch_from_links(
    config: LinksConfig, links: Sequence[Link], folder: Path, renewal: str, context: StageContext
) -> None:
    """Download what is not in `folder` yet, each file under the link's name.

    One file that cannot be had does not keep the others from being finished. renewal: what to do about links
    that have expired. Raises InputError naming what is missing, and what to do.
    """
    links = [link for link in links if not (folder / link.name).exists()]
    stop = Event()
    downloader = HttpDownloader(config, stop)
    with (
        context.progress(0, "Downloading", "B") as bar,
        ThreadPoolExecutor(config.parallel, "download") as threads,
    ):
        progress = ByteProgress(bar)
        downloads = [
            threads.submit(downloader.download, link, folder / link.name, progress.file()) for link in links
        ]
        try:
            problems = [download.exception() for download in downloads]
        finally:
            stop.set()
    _raise_for(links, problems, renewal)


def links_of(config: DataLinks) -> list[Link]:
    """The links of a data set's files. Raises InputError where the list of signed ones lacks one."""
    unsigned = [file.name for file in config.files if file.url is None]
    signed = read_links(Path(config.signed), unsigned) if config.signed is not None else []
    urls = {link.name: link.url for link in signed}
    return [
        Link(
            name=file.name,
            url=urls[file.name] if file.url is None else SecretStr(file.url),
            size=file.size,
            sha256=file.sha256,
            stated_in="params.yaml",
            remedy="correct its link",
        )
        for file in config.files
    ]


def renewal_in(file: str) -> str:
    """What to do about expired links of the list in this file."""
    return f"fetch a fresh list, put it under the same name (`{file}`)"


def _raise_for(links: Sequence[Link], problems: Sequence[BaseException | None], renewal: str) -> None:
    expired = [
        link.name for link, problem in zip(links, problems, strict=True) if isinstance(problem, LinkExpired)
    ]
    if expired:
        raise InputError(
            f"links of {listed(expired)} have expired: {renewal} and run again; finished files and parts are kept"
        )
    failed = [problem for problem in problems if problem is not None]
    for problem in failed:
        if not isinstance(problem, InputError):
            raise problem
    if failed:
        more = f" ({len(failed) - 1} more files failed)" if len(failed) > 1 else ""
        raise InputError(f"{failed[0]}{more}")
