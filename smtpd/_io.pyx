# cython: auto_pickle=False, autotestdict=False
# System calls on raw descriptors that keep the GIL; _io.pyi is the documented face.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno, EAFNOSUPPORT, EBADF, ECONNREFUSED, EINPROGRESS, EINTR, EINVAL, ENAMETOOLONG
from libc.math cimport ceil
from libc.string cimport memcmp, memcpy, memset
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    ssize_t c_recv "recv"(int fd, void *buf, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buf, size_t size, int flags)
    int c_accept4 "accept4"(int fd, sockaddr *address, socklen_t *size, int flags)
    int c_shutdown "shutdown"(int fd, int how)
    int c_socket "socket"(int family, int kind, int protocol)
    int c_connect "connect"(int fd, const sockaddr *address, socklen_t size)
    int c_bind "bind"(int fd, const sockaddr *address, socklen_t size)
    int getsockname(int fd, sockaddr *address, socklen_t *size)
    int getpeername(int fd, sockaddr *address, socklen_t *size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    int MSG_NOSIGNAL, MSG_DONTWAIT, MSG_MORE, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_STREAM, AF_INET, AF_INET6, AF_UNIX, SHUT_WR
    int SOL_SOCKET, SO_ERROR

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    unsigned short ntohs(unsigned short value)
    unsigned short htons(unsigned short value)
    int IPPROTO_TCP, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT

cdef extern from "net/if.h" nogil:
    unsigned int if_nametoindex(const char *name)

cdef extern from "sys/un.h" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "netinet/tcp.h" nogil:
    int TCP_NODELAY

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *source, char *target, socklen_t size)
    int inet_pton(int family, const char *source, void *target)

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)
    ssize_t c_read "read"(int fd, void *buf, size_t size)
    ssize_t c_write "write"(int fd, const void *buf, size_t size)

cdef extern from "sys/epoll.h" nogil:
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int CLOCK_MONOTONIC, CLOCK_REALTIME

cdef enum:
    MAX_EVENTS = 256  # as the array size in _io.pxd


cpdef double monotonic_s() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9


cpdef long long unix_us() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <long long>now.tv_sec * 1000000 + now.tv_nsec // 1000


cpdef Py_ssize_t recv_into(int fd, bytearray buffer, Py_ssize_t offset, Py_ssize_t size) except? -1000000:
    cdef ssize_t n
    if buffer is None or offset < 0 or size <= 0 or offset + size > PyByteArray_GET_SIZE(buffer):
        return -EINVAL
    while True:
        n = c_recv(fd, PyByteArray_AS_STRING(buffer) + offset, <size_t>size, MSG_DONTWAIT)
        if n >= 0:
            return n
        if errno != EINTR:
            return -errno


cpdef Py_ssize_t send(int fd, bytes data, Py_ssize_t offset) except? -1000000:
    return _send(fd, data, offset, 0)


cpdef Py_ssize_t send_last(int fd, bytes data) except? -1000000:
    return _send(fd, data, 0, MSG_MORE)


cdef Py_ssize_t _send(int fd, bytes data, Py_ssize_t offset, int flags) except? -1000000:
    cdef ssize_t n
    cdef Py_ssize_t size
    if data is None:
        return -EINVAL
    size = PyBytes_GET_SIZE(data)
    if offset < 0 or offset > size:
        return -EINVAL
    while True:
        n = c_send(fd, PyBytes_AS_STRING(data) + offset, <size_t>(size - offset), MSG_NOSIGNAL | MSG_DONTWAIT | flags)
        if n >= 0:
            return n
        if errno != EINTR:
            return -errno


cdef object _peer_of(sockaddr_storage *address):
    cdef char text[64]
    cdef sockaddr_in *four
    cdef sockaddr_in6 *six
    cdef int i
    cdef bint is_mapped
    if address.ss_family == AF_INET:
        four = <sockaddr_in *>address
        inet_ntop(AF_INET, &four.sin_addr, text, 64)
        return (<bytes>text).decode("ascii"), ntohs(four.sin_port)
    if address.ss_family == AF_INET6:
        six = <sockaddr_in6 *>address
        is_mapped = six.sin6_addr.s6_addr[10] == 0xFF and six.sin6_addr.s6_addr[11] == 0xFF
        for i in range(10):
            if six.sin6_addr.s6_addr[i] != 0:
                is_mapped = False
        if is_mapped:
            inet_ntop(AF_INET, &six.sin6_addr.s6_addr[12], text, 64)
        else:
            inet_ntop(AF_INET6, &six.sin6_addr, text, 64)
        return (<bytes>text).decode("ascii"), ntohs(six.sin6_port)
    return "", 0


def accept(int fd):
    cdef sockaddr_storage address
    cdef socklen_t size
    cdef int new
    memset(&address, 0, sizeof(address))
    while True:
        size = sizeof(address)
        new = c_accept4(fd, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if new >= 0:
            break
        if errno != EINTR:
            return -errno, ("", 0)
    return new, _peer_of(&address)


cdef socklen_t _fill_address(sockaddr_storage *address, str host, int port):
    # Write an IP address without brackets and a port; the size, 0 when it isn't one.
    cdef bytes text, scope
    cdef sockaddr_in *four = <sockaddr_in *>address
    cdef sockaddr_in6 *six = <sockaddr_in6 *>address
    memset(address, 0, sizeof(sockaddr_storage))
    if not host.isascii() or "\0" in host or port < 0 or port > 65535:
        return 0
    text, _, scope = host.encode("ascii").partition(b"%")
    if b":" not in text:
        four.sin_family = AF_INET
        four.sin_port = htons(port)
        return sizeof(sockaddr_in) if not scope and inet_pton(AF_INET, text, &four.sin_addr) == 1 else 0
    six.sin6_family = AF_INET6
    six.sin6_port = htons(port)
    if scope:
        six.sin6_scope_id = int(scope) if scope.isdigit() and len(scope) < 9 else if_nametoindex(scope)
    return sizeof(sockaddr_in6) if inet_pton(AF_INET6, text, &six.sin6_addr) == 1 else 0


cdef tuple _connect(int family, sockaddr_storage *source, socklen_t source_size, sockaddr_storage *target, socklen_t size):
    cdef int fd, failure, one = 1
    fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -1, errno
    if family != AF_UNIX:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if source_size:
        # the port is chosen at connect: by the pair of addresses, not one port of 28,000 for each connection of the host
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        if c_bind(fd, <sockaddr *>source, source_size) < 0:
            failure = errno
            c_close(fd)
            return -1, failure
    if c_connect(fd, <sockaddr *>target, size) == 0:
        return fd, 0
    failure = errno
    if failure == EINPROGRESS or (failure == EINTR and family != AF_UNIX):  # interrupted: it goes on by itself
        return fd, EINPROGRESS
    c_close(fd)
    return -1, failure


def start_connect(str host not None, int port, str source_host not None):
    cdef sockaddr_storage target
    cdef sockaddr_storage source
    cdef socklen_t size, source_size = 0
    size = _fill_address(&target, host, port)
    if size == 0:
        return -1, EINVAL
    if source_host:
        source_size = _fill_address(&source, source_host, 0)
        if source_size == 0:
            return -1, EINVAL
        if source.ss_family != target.ss_family:
            return -1, EAFNOSUPPORT
    return _connect(target.ss_family, &source, source_size, &target, size)


def start_connect_unix(bytes path not None):
    cdef sockaddr_storage target
    cdef sockaddr_un *un = <sockaddr_un *>&target
    cdef Py_ssize_t size = PyBytes_GET_SIZE(path)
    if size == 0 or b"\0" in path:
        return -1, EINVAL
    if size >= <Py_ssize_t>sizeof(un.sun_path):
        return -1, ENAMETOOLONG
    memset(&target, 0, sizeof(target))
    un.sun_family = AF_UNIX
    memcpy(un.sun_path, PyBytes_AS_STRING(path), size)
    return _connect(AF_UNIX, NULL, 0, &target, sizeof(sockaddr_un))


def finish_connect(int fd):
    cdef int failure = 0
    cdef socklen_t size = sizeof(failure)
    cdef socklen_t own_size, peer_size
    cdef sockaddr_storage own
    cdef sockaddr_storage peer
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) < 0:
        return EBADF
    if failure:
        return failure
    own_size = peer_size = sizeof(own)
    memset(&own, 0, sizeof(own))
    memset(&peer, 0, sizeof(peer))
    if getsockname(fd, <sockaddr *>&own, &own_size) < 0 or getpeername(fd, <sockaddr *>&peer, &peer_size) < 0:
        return errno
    # a connect to a free port of this host that happened to start from that very port
    if own.ss_family != AF_UNIX and own_size == peer_size and memcmp(&own, &peer, own_size) == 0:
        return ECONNREFUSED
    return 0


@cython.final
cdef class Poller:
    def __init__(self, int epfd):
        self._epfd = epfd

    cpdef int wait_now(self) noexcept:
        self.count = max(epoll_wait(self._epfd, self._events, MAX_EVENTS, 0), 0)
        return self.count

    cpdef int wait(self, double longest_s) except -1:
        cdef int timeout_ms = -1
        cdef int found, code = 0
        if longest_s >= 0:
            timeout_ms = <int>min(ceil(longest_s * 1000), 1e9)
        with nogil:
            found = epoll_wait(self._epfd, self._events, MAX_EVENTS, timeout_ms)
            if found < 0:
                code = errno
        self.count = max(found, 0)
        if code == EINTR:
            PyErr_CheckSignals()
        elif code:
            raise OSError(code, "epoll_wait failed")
        return self.count

    cpdef int add(self, int fd, int events) except -1:
        return self._control(EPOLL_CTL_ADD, fd, events)

    cpdef int modify(self, int fd, int events) except -1:
        return self._control(EPOLL_CTL_MOD, fd, events)

    cpdef int remove(self, int fd) except -1:
        return self._control(EPOLL_CTL_DEL, fd, 0)

    cdef int _control(self, int operation, int fd, int events) except -1:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = <uint32_t>events
        event.data.fd = fd
        if epoll_ctl(self._epfd, operation, fd, &event) < 0:
            raise OSError(errno, "epoll_ctl failed")
        return 0

    cpdef int descriptor(self, int position) noexcept:
        return self._events[position].data.fd if 0 <= position < self.count else -1

    cpdef int mask(self, int position) noexcept:
        return <int>self._events[position].events if 0 <= position < self.count else 0


cpdef int shutdown_write(int fd) except? -1000000:
    return 0 if c_shutdown(fd, SHUT_WR) == 0 else -errno


cpdef int close(int fd) except? -1000000:
    return 0 if c_close(fd) == 0 else -errno


def notify_eventfd(int fd):
    cdef uint64_t one = 1
    return 0 if c_write(fd, &one, 8) == 8 else -errno


def drain_eventfd(int fd):
    cdef uint64_t count = 0
    if c_read(fd, &count, 8) != 8:
        return -errno
    return count
