cdef int _ARRIVING


cdef class SqliteWriter:
    cdef object _spool
    cdef readonly str queue_id
    cdef readonly object envelope
    cdef readonly Py_ssize_t size_bytes
    cdef public list chunks
    cdef Py_ssize_t _held_bytes
    cdef public object spill
    cdef public int state
    cdef public bytes data
    cdef public object row
    cdef public object done
    cdef object _on_drain

    cpdef bint write(self, bytes chunk) except -1
    cpdef bint _write_spill(self) except -1
    cpdef bint _flush(self, spill) except -1
    cpdef abort(self)
