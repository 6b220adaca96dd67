from smtpd._tally cimport PairCells, PairCounts, Tally
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
    cdef Py_ssize_t _accepted
    cdef Py_ssize_t _accepted_bytes
    cdef Py_ssize_t _accepted_recipients
    cdef Py_ssize_t _size
    cdef Py_ssize_t _session_s
    cdef Py_ssize_t _end_of_data_s
    cdef PairCells _pairs
    cdef dict _ended
    cdef dict _denied

    @cython.locals(pairs=PairCells, cells=Cells, i=int, pair=int, place=int, command=int)
    cpdef count_tally(self, Tally tally, PairCounts counts)

    @cython.locals(cells=Cells)
    cpdef connected(self, str client)

    cpdef disconnected(self, str client, str reason, double seconds, PairCounts counts)

    cpdef _count_new(self, int pair)

    @cython.locals(cells=Cells)
    cpdef accepted(
        self,
        bytes reverse_path,
        Py_ssize_t recipient_count,
        str queue_id,
        str client,
        bytes message_id,
        Py_ssize_t size_bytes,
        double seconds,
    )
