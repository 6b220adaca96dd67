from smtpd cimport _io
from smtpd._text cimport join_number

cimport cython


cdef int _CLOCK_DIGITS


cdef class QueueIdMaker:
    cdef str _origin
    cdef long long _last_us
    cdef object _clock

    @cython.locals(now_us=cython.longlong)
    cpdef str next_id(self)
