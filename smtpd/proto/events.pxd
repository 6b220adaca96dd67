cdef class Event:
    cdef readonly int kind
    cdef readonly int token
    cdef readonly object data
    cdef readonly str stage
