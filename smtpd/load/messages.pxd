cimport cython


cdef Py_ssize_t _LINE_BYTES


cdef class Filler:
    cdef bytes _kept
    cdef Py_ssize_t _kept_size
    cdef Py_ssize_t _lines
    cdef bytes _text

    @cython.locals(lines=Py_ssize_t, rest=Py_ssize_t, body=bytes)
    cpdef bytes make(self, Py_ssize_t size)


cdef class Template:
    cdef list _pieces
    cdef list _spots
    cdef readonly bint is_fixed

    @cython.locals(pieces=list, spot=Py_ssize_t)
    cpdef bytes expand(self, dict values)


cdef class Calendar:
    cdef long _second
    cdef bytes _text

    @cython.locals(second=long)
    cpdef bytes now(self)
