cdef class Extensions:
    cdef public Py_ssize_t flags
    cdef public Py_ssize_t size_limit
    cdef public Py_ssize_t recipient_limit
    cdef public Py_ssize_t mail_limit
