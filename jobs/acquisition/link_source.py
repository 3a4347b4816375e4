"""Shards by the publisher's links, several at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from data_contracts.errors import InputError
from jobs.acquisition.byte_progress import ByteProgress
from jobs.acquisition.http_download import HttpDownloader, LinkExpired
from jobs.acquisition.link_list import Link, listed, read_links
from jobs.acquisition.sa1b_settings import LinksConfig
from jobs.runner.context import StageContext


def fetch_from_links(config: LinksConfig, shards: Sequence[str], folder: Path, context: StageContext) -> None:
    """Download the shards that are not in `folder` yet; the links are looked up in the list `config.file`.

    One shard that cannot be had does not keep the others from being finished. Raises InputError naming what is
    missing, and what to do.
    """
    links = [link for link in read_links(Path(config.file), shards) if not (folder / link.name).exists()]
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
    _raise_for(links, problems, config.file)


def _raise_for(links: Sequence[Link], problems: Sequence[BaseException | None], file: str) -> None:
    expired = [
        link.name for link, problem in zip(links, problems, strict=True) if isinstance(problem, LinkExpired)
    ]
    if expired:
        raise InputError(
            f"links of {listed(expired)} in `{file}` have expired: fetch a fresh list where you accepted the licence,"
            " put it under the same name and run again; finished shards and parts are kept"
        )
    failed = [problem for problem in problems if problem is not None]
    for problem in failed:
        if not isinstance(problem, InputError):
            raise problem
    if failed:
        more = f" ({len(failed) - 1} more shards failed)" if len(failed) > 1 else ""
        raise InputError(f"{failed[0]}{more}")
