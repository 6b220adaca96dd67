cdef class HopHealth:
    cdef public object hop
    cdef public Py_ssize_t failures
    cdef public Py_ssize_t live
    cdef public double _plain_until_s
    cdef public double _own_until_s
    cdef public str _own_text
    cdef public object _row

    cpdef bint is_set_aside(self, double now_s) except -1
    cpdef bint begin_probe(self, double now_s, double retry_s) except -1
    cpdef end_probe(self)
    cpdef note_answer(self)
    cpdef note_success(self)
    cpdef bint note_failure(self, double now_s, double retry_s, str text, bint was_ready) except -1
    cpdef note_unfit(self, double until_s, str text)
    cpdef bint is_plain(self, double now_s) except -1
    cpdef note_broken_tls(self, double now_s)
    cpdef bint take_connection(self, Py_ssize_t most) except -1
    cpdef give_connection(self)
    cpdef beg(self, double now_s)
    cpdef bint is_begged(self, double now_s) except -1
