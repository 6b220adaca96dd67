# The C face of _io: compiled modules call these without a Python call.
cpdef Py_ssize_t recv_into(int fd, bytearray buffer, Py_ssize_t offset, Py_ssize_t size) except? -1000000
cpdef Py_ssize_t send(int fd, bytes data, Py_ssize_t offset) except? -1000000
cpdef list epoll_wait_now(int epfd, int max_events)
cpdef int shutdown_write(int fd) except? -1000000
cpdef int close(int fd) except? -1000000
cpdef double monotonic_s() noexcept
cpdef long long unix_us() noexcept
