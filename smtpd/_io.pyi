"""System calls on raw descriptors that keep the GIL.

`socket.recv` and `send` give the GIL up even on a non-blocking descriptor; with one busy Python thread beside the loop each
call then waits up to a switch interval to get it back. These calls never block (descriptors must be non-blocking), never
raise, and return a negative errno instead of failing: -11 is EAGAIN. EINTR is retried inside.
"""

from typing import final

def recv_into(fd: int, buffer: bytearray, offset: int, size: int) -> int:
    """recv(2) up to `size` octets into `buffer` at `offset`; 0 at the end of the stream, -errno on failure."""

def send(fd: int, data: bytes, offset: int) -> int:
    """send(2) with MSG_NOSIGNAL of data[offset:]; the number of octets taken, or -errno."""

def accept(fd: int) -> tuple[int, tuple[str, int]]:
    """accept4(2) with SOCK_NONBLOCK | SOCK_CLOEXEC, TCP_NODELAY as the listener has it; (descriptor or -errno, peer).

    The peer is (address, port) for IPv4 and IPv6 (mapped IPv4 is given as IPv4) and ("", 0) for a unix socket."""

def start_connect(host: str, port: int, source_host: str) -> tuple[int, int]:
    """socket(2), bind(2) to `source_host` unless it is "", connect(2) without waiting, with TCP_NODELAY.

    (descriptor, 0) when connected, (descriptor, EINPROGRESS) when it will be writable at the end, (-1, errno) on failure.
    The hosts are IP addresses without brackets (EINVAL otherwise) of one family (EAFNOSUPPORT otherwise)."""

def start_connect_unix(path: bytes) -> tuple[int, int]:
    """The same for a unix socket; EAGAIN when its backlog is full, ENAMETOOLONG from 108 octets on."""

def finish_connect(fd: int) -> int:
    """What became of a started connect: 0 or an errno. A socket connected to itself counts as refused."""

@final
class Poller:
    """epoll_wait(2) on an epoll descriptor, and what it found: `count` pairs of descriptor and event mask, 256 at most."""

    count: int
    def __init__(self, epfd: int) -> None: ...
    def wait_now(self) -> int:
        """Look without waiting, keep the GIL; return `count`, 0 on any failure."""
    def wait(self, longest_s: float) -> int:
        """Wait without the GIL, for ever when `longest_s` is negative; return `count`. A signal ends it early. OSError."""
    def add(self, fd: int, events: int) -> int:
        """Watch a descriptor. OSError."""
    def modify(self, fd: int, events: int) -> int: ...
    def remove(self, fd: int) -> int:
        """Watch it no more; a descriptor that is closed leaves by itself. OSError."""
    def descriptor(self, position: int) -> int: ...
    def mask(self, position: int) -> int: ...

def send_last(fd: int, data: bytes) -> int:
    """send(2) of what `close` follows at once: both leave in one segment. The count that was sent or -errno."""

def shutdown_write(fd: int) -> int:
    """shutdown(2) of the write side; 0 or -errno."""

def close(fd: int) -> int:
    """close(2); 0 or -errno."""

def notify_eventfd(fd: int) -> int:
    """Add 1 to an eventfd; 0 or -errno. Safe from any thread."""

def drain_eventfd(fd: int) -> int:
    """Read an eventfd's counter; the count or -errno."""

def monotonic_s() -> float:
    """The same as time.monotonic()."""

def unix_us() -> int:
    """Microseconds since 1970."""
