from smtpd cimport _io

cimport cython


cdef int _INFO


cdef class Stamp:
    cdef readonly str hostname
    cdef readonly int pid
    cdef readonly str utc
    cdef str _name
    cdef bint _is_syslog
    cdef object _clock
    cdef double _begin
    cdef double _end
    cdef str _local
    cdef dict _headers

    @cython.locals(now=double, header=str)
    cpdef str header(self, str program, int severity=*)

    cpdef _turn(self, long long second)

    @cython.locals(header=str)
    cpdef str _make(self, str program, int severity)
