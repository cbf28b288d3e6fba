"""The tar form of packages: plain ustar with regular files only, every header the same for the same path and
size.

Written by hand rather than with tarfile, whose reader follows links, sparse maps and headers of any size that
a hostile archive may hold; any tar program reads what is written here. Layout: POSIX 1003.1-1988 (ustar);
sizes of 8 GiB and more in the base-256 form that GNU tar introduced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
_OCTAL_LIMIT = 8**11
END = bytes(2 * BLOCK)


class TarError(ValueError):
    """The bytes are not a tar of the accepted form; `truncated` if they only end too early."""

    def __init__(self, message: str, *, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a tar: its path and size."""

    path: str
    size: int


def padding(size: int) -> int:
    """Bytes of zeros after a file of this size."""
    return -size % BLOCK


def header(entry: Entry) -> bytes:
    """The header block of a file. Raises ValueError if the path is too long for the format."""
    prefix, name = _split(entry.path)
    if entry.size < _OCTAL_LIMIT:
        size = b"%011o\0" % entry.size
    else:
        size = b"\x80" + entry.size.to_bytes(11, "big")
    block = bytearray(BLOCK)
    for offset, value in (
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, size),
        (136, b"00000000000\0"),
        (148, b" " * 8),
        (156, b"0"),
        (257, b"ustar\x0000"),
        (345, prefix),
    ):
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _split(path: str) -> tuple[bytes, bytes]:
    name = path.encode()
    if len(name) <= 100:
        return b"", name
    for at in range(min(155, len(name) - 1), 0, -1):
        if name[at : at + 1] == b"/" and len(name) - at - 1 <= 100:
            return name[:at], name[at + 1 :]
    raise ValueError(
        f"the path {path!r} is too long for a package: its last part may have 100 bytes, the whole 255"
    )


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Reads headers one after the other. The caller reads exactly `size` bytes of each before going on.

    Ends after the end mark, and checks that nothing but zeros follows. Raises TarError.
    """
    while True:
        block = read_exactly(file, BLOCK)
        if block == bytes(BLOCK):
            break
        entry = _parse(block)
        yield entry
        pad = read_exactly(file, padding(entry.size))
        if pad.strip(b"\0"):
            raise TarError(f"there is data after the end of {entry.path!r}")
    read_exactly(file, BLOCK)
    while rest := file.read(1 << 20):
        if rest.strip(b"\0"):
            raise TarError("there is data after the end of the archive")


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Reads so many bytes. Raises TarError when the file ends before."""
    data = file.read(size)
    if len(data) != size:
        raise TarError("the archive ends too early", truncated=True)
    return data


def _parse(block: bytes) -> Entry:
    if block[257:263] not in (b"ustar\0", b"ustar "):
        raise TarError("it is no tar archive")
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if _octal(block[148:156]) != total:
        raise TarError("a header has a wrong checksum")
    prefix = block[345:500].split(b"\0", 1)[0]
    name = block[0:100].split(b"\0", 1)[0]
    try:
        path = (prefix + b"/" + name if prefix else name).decode("utf-8")
    except UnicodeDecodeError:
        raise TarError("a path is not UTF-8") from None
    kind = block[156:157]
    if kind not in (b"0", b"\0"):
        names = {
            b"1": "a hard link",
            b"2": "a symbolic link",
            b"5": "a folder",
            b"3": "a device",
            b"4": "a device",
        }
        raise TarError(f"{path!r} is {names.get(kind, 'not a plain file')}; packages hold plain files only")
    return Entry(path, _size(block[124:136]))


def _size(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int:
    text = field.strip(b"\0 ")
    if not text or text.strip(b"01234567"):
        raise TarError("a header has a wrong number")
    return int(text, 8)
