"""A raw file that is read at a position, whatever its bytes come from."""

from __future__ import annotations

import io


class SeekableFile(io.RawIOBase):
    """The position of a file that is read. Subclasses read at `_position` and know where the file ends."""

    _position = 0

    def _end(self) -> int:
        """Return the size of the file in bytes."""
        raise NotImplementedError

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: seeking costs nothing until something is read there."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to `offset` and return the position. Raises `OSError` before the start of the file."""
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._end()
        if offset < 0:
            raise OSError(f"negative seek position {offset}")
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the position."""
        return self._position
