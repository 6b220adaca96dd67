# The C face of _cells: other extension modules cimport Cells and count without a Python call.

cdef class Cells:
    cdef double *_cells
    cdef Py_ssize_t _count
    cdef Py_buffer _view
    cdef bint _has_view
    cdef double _bounds[16][32]
    cdef int _bound_counts[16]

    cdef int c_add(self, Py_ssize_t index, double amount) except -1
    cdef int c_set(self, Py_ssize_t index, double value) except -1
    cdef int c_observe(self, Py_ssize_t histogram, double value) except -1

    cpdef inc(self, Py_ssize_t index)
    cpdef add(self, Py_ssize_t index, double amount)
    cpdef set(self, Py_ssize_t index, double value)
    cpdef observe(self, Py_ssize_t histogram, double value)
