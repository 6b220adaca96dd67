# The C face of _io: compiled modules call these without a Python call.
from libc.stdint cimport uint32_t

cdef extern from "sys/epoll.h" nogil:
    union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data


cdef class Poller:
    cdef int _epfd
    cdef readonly int count
    cdef epoll_event _events[256]

    cpdef int wait_now(self) noexcept
    cpdef int wait(self, double longest_s) except -1
    cpdef int add(self, int fd, int events) except -1
    cpdef int modify(self, int fd, int events) except -1
    cpdef int remove(self, int fd) except -1
    cdef int _control(self, int operation, int fd, int events) except -1
    cpdef int descriptor(self, int position) noexcept
    cpdef int mask(self, int position) noexcept


cpdef Py_ssize_t recv_into(int fd, bytearray buffer, Py_ssize_t offset, Py_ssize_t size) except? -1000000
cpdef Py_ssize_t send(int fd, bytes data, Py_ssize_t offset) except? -1000000
cpdef Py_ssize_t send_last(int fd, bytes data) except? -1000000
cpdef int shutdown_write(int fd) except? -1000000
cpdef int close(int fd) except? -1000000
cpdef double monotonic_s() noexcept
cpdef long long unix_us() noexcept
