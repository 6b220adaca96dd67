# System calls on raw descriptors that keep the GIL; _io.pyi is the documented face.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.errno cimport errno, EINTR, EINVAL
from libc.string cimport memset
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
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int MSG_NOSIGNAL, MSG_DONTWAIT, SOCK_NONBLOCK, SOCK_CLOEXEC, AF_INET, AF_INET6, SHUT_WR

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
    unsigned short ntohs(unsigned short value)
    int IPPROTO_TCP

cdef extern from "netinet/tcp.h" nogil:
    int TCP_NODELAY

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *source, char *target, socklen_t size)

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)
    ssize_t c_read "read"(int fd, void *buf, size_t size)
    ssize_t c_write "write"(int fd, const void *buf, size_t size)

cdef extern from "sys/epoll.h" nogil:
    union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef enum:
    MAX_EVENTS = 512


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
    cdef ssize_t n
    cdef Py_ssize_t size
    if data is None:
        return -EINVAL
    size = PyBytes_GET_SIZE(data)
    if offset < 0 or offset > size:
        return -EINVAL
    while True:
        n = c_send(fd, PyBytes_AS_STRING(data) + offset, <size_t>(size - offset), MSG_NOSIGNAL | MSG_DONTWAIT)
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
    cdef int new, one = 1
    memset(&address, 0, sizeof(address))
    while True:
        size = sizeof(address)
        new = c_accept4(fd, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if new >= 0:
            break
        if errno != EINTR:
            return -errno, ("", 0)
    if address.ss_family == AF_INET or address.ss_family == AF_INET6:
        setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    return new, _peer_of(&address)


cpdef list epoll_wait_now(int epfd, int max_events):
    cdef epoll_event events[MAX_EVENTS]
    cdef int i, n
    cdef list ready
    if max_events > MAX_EVENTS:
        max_events = MAX_EVENTS
    n = epoll_wait(epfd, events, max_events, 0)
    ready = []
    for i in range(n):
        ready.append((events[i].data.fd, events[i].events))
    return ready


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
