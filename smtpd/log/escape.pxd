cimport cython


cdef Py_ssize_t _ADDRESS_LIMIT

@cython.locals(text=str)
cpdef str clean_bytes(bytes data, Py_ssize_t limit=*)

cpdef str clean_text(str text, Py_ssize_t limit=*)

@cython.locals(text=str)
cpdef str in_brackets(bytes data)
