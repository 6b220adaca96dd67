cimport cython


cdef int _END, _FAILED


cdef class TlsEngine:
    cdef object _incoming
    cdef object _outgoing
    cdef object _ssl
    cdef list _early
    cdef bint _is_closing
    cdef bint _is_ended
    cdef public object done
    cdef readonly bint is_shaking
    cdef readonly bint is_dry
    cdef readonly str failure

    cpdef receive(self, bytearray buffer, Py_ssize_t count)
    cpdef bint shake(self) except -1
    @cython.locals(asked=Py_ssize_t, count=Py_ssize_t, got=Py_ssize_t)
    cpdef Py_ssize_t read(self, bytearray buffer, Py_ssize_t size) except? -3
    cpdef encrypt(self, bytes data)
    cpdef say_end(self)
    cpdef bytes take_output(self)
    cpdef fail(self, str text)
