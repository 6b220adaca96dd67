from smtpd.net.loop cimport Loop, Timer

cimport cython


cdef double _AWAITED_S, _SETTLED_S


cdef class Gathering:
    cdef Loop _loop
    cdef object _hand_over
    cdef list _batches
    cdef bint _is_awaited
    cdef double _since_s
    cdef Timer _timer

    cpdef object batch_of(self, shard)
    cpdef object awaited_batch_of(self, shard)
    @cython.locals(until_s=double)
    cpdef end_turn(self)
    cpdef hand_over(self)
    cpdef _on_idle(self)
