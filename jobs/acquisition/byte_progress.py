"""A progress bar in bytes, moved by several downloads at a time."""

from threading import Lock

from tqdm import tqdm


class ByteProgress:
    """Its length grows with each size that becomes known."""

    def __init__(self, bar: tqdm) -> None:
        bar.unit_scale = True
        bar.unit_divisor = 1024
        self._bar = bar
        self._lock = Lock()

    def file(self) -> "FileProgress":
        return FileProgress(self)

    def move(self, received: int, expected: int, found: int = 0) -> None:
        """received, expected: bytes more (or less); found: bytes that an earlier run has left."""
        if self._bar.disable:
            return
        with self._lock:
            self._bar.total = (self._bar.total or 0) + expected
            # Bytes found do not count into the rate.
            self._bar.n += found
            self._bar.initial += found
            self._bar.last_print_n += found
            self._bar.update(received)


class FileProgress:
    """One file's share of the bar."""

    def __init__(self, whole: ByteProgress) -> None:
        self._whole = whole
        self._position: int | None = None
        self._size = 0

    def place(self, position: int, size: int | None) -> None:
        """The file has `position` bytes of `size`; a position before the last one starts over."""
        if self._position is None:
            self._whole.move(0, (size or 0) - self._size, found=position)
        else:
            self._whole.move(position - self._position, (size or 0) - self._size)
        self._position, self._size = position, size or 0

    def received(self, count: int) -> None:
        self._position = (self._position or 0) + count
        self._whole.move(count, 0)
