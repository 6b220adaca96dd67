from smtpd.metrics._cells cimport Cells

cimport cython


cdef class ListenerAccount:
    cdef readonly str listener
    cdef readonly object log
    cdef readonly bint is_logging
    cdef Cells _cells
    cdef object _index
    cdef Py_ssize_t _connections
    cdef Py_ssize_t _active
    cdef Py_ssize_t _active_count
    cdef dict _messages
    cdef dict _message_bytes
    cdef dict _recipients
    cdef Py_ssize_t _size
    cdef Py_ssize_t _session_s
    cdef Py_ssize_t _end_of_data_s
    cdef dict _pairs

    @cython.locals(known=tuple, cells=Cells)
    cpdef count_tally(self, list tally, dict counts)

    @cython.locals(cells=Cells)
    cpdef accepted(self, envelope, str queue_id, str client, bytes message_id, Py_ssize_t size_bytes, double seconds, str result)
