cimport cython


cdef class Reply:
    cdef readonly int code
    cdef readonly bytes wire
    cdef readonly bint is_error
    cdef readonly bint closes


@cython.locals(reply=Reply)
cpdef Reply make_success(int code, bytes wire)
