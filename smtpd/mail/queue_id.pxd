from smtpd cimport _io

cimport cython


cdef long long _PAIR_BASE
cdef list _PAIRS


cdef class QueueIdMaker:
    cdef str _origin
    cdef str _head
    cdef long long _last_us
    cdef long long _head_value
    cdef object _clock

    @cython.locals(now_us=cython.longlong, last_us=cython.longlong, head=cython.longlong)
    cpdef str next_id(self)
