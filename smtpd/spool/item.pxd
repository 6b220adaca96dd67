cdef class Body:
    cdef public bytes data
    cdef public str path
    cdef public Py_ssize_t size_bytes



cdef class SpoolItem:
    cdef public str queue_id
    cdef public object envelope
    cdef public Py_ssize_t size_bytes
    cdef public Py_ssize_t row
    cdef public object shard
    cdef public Py_ssize_t attempts
    cdef public bint is_spilled
    cdef public list outcomes
    cdef public Body body
