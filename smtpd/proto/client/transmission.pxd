cimport cython


cdef object _UNDECIDED


cdef class Transmission:
    cdef public object envelope
    cdef public list recipients
    cdef public bytes body
    cdef public bytes head
    cdef public Py_ssize_t size_bytes
    cdef public list outcomes
    cdef public list put_off
    cdef public bint is_8bit_unannounced
    cdef public Py_ssize_t undecided
    cdef public list asked
    cdef public list commands
    cdef public list accepted
    cdef public Py_ssize_t reply_count
    cdef public Py_ssize_t final_count
    cdef public bint is_chunked
    cdef public Py_ssize_t content_state
    cdef public Py_ssize_t end_bytes
    cdef public bint has_turn
    cdef public bint needs_reset

    cpdef begin(self, envelope, list recipients, bytes body, Py_ssize_t size_bytes, bytes head)
    cpdef decide(self, Py_ssize_t place, outcome)
    cpdef decide_rest(self, outcome)
    cpdef bint is_decided(self, Py_ssize_t place) except -1
    cpdef put_off_rest(self, outcome, Py_ssize_t first=*)


@cython.locals(transmission=Transmission)
cpdef Transmission begin_transmission(envelope, list recipients, bytes body)
