cimport cython


cdef double _TICKS
cdef long _MOST, _LINEAR


cdef class Histogram:
    cdef list _counts
    cdef readonly long count
    cdef long _least
    cdef long _greatest
    cdef double _sum

    @cython.locals(ticks=double, value=long, base=Py_ssize_t, counts=list)
    cpdef record(self, double seconds)
