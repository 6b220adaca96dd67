cimport cython


cdef class Offer:
    cdef readonly bint is_open
    cdef public double next_at
    cdef public long taken
    cdef double _ends_at
    cdef long _count

    cpdef double take(self, double now) except? -1
    cpdef stop(self, double now)
    cpdef long count_due(self, double now) except -1


cdef class ClosedOffer(Offer):
    pass


cdef class OpenOffer(Offer):
    cdef double _starts_at
    cdef double _rate
    cdef double _shares
    cdef double _ramp_up_s
    cdef double _place
    cdef object _random

    @cython.locals(ramp_up_s=double, rate=double, place=double, in_ramp_up=double, after_s=double)
    cpdef _set_next(self)
