from smtpd._scan cimport octets

cimport cython


@cython.final
cdef class ReplyReader:
    cdef readonly int code
    cdef readonly str dsn
    cdef readonly list lines
    cdef readonly bint is_complete
    cdef readonly str error
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _total  # octets of this reply so far, without the unfinished line
    cdef bint _is_open  # a line with "-" was seen, so another one follows
    cdef bytes _dsn_octets
    cdef unsigned char *_held  # the unfinished line
    cdef Py_ssize_t _held_bytes
    cdef Py_ssize_t _held_room

    cpdef Py_ssize_t read(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1
    cdef object _fail(self, str error, Py_ssize_t end)
    cdef int _hold(self, octets p, Py_ssize_t size) except -1
    cdef int _take_line(self, octets p, octets end) except -1


@cython.final
cdef class BodyEncoder:
    cdef bint _is_stuffing
    cdef int _state
    cdef bint _is_changed
    cdef unsigned char *_out  # NULL: count only
    cdef Py_ssize_t _out_bytes

    cpdef bytes feed(self, bytes data)
    cpdef bytes finish(self)
    cdef void _put(self, octets p, Py_ssize_t size) noexcept nogil
    cdef void _scan(self, octets p, Py_ssize_t size) noexcept nogil
