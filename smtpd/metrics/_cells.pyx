# Counter cells in shared memory; _cells.pyi is the documented face.
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

cdef enum:
    MAX_RULERS = 16  # as the array sizes in _cells.pxd
    MAX_BOUNDS = 32
    C_RULER_SHIFT = 24
    C_INDEX_MASK = 0xFFFFFF

RULER_SHIFT = C_RULER_SHIFT
INDEX_MASK = C_INDEX_MASK


cdef class Cells:
    def __cinit__(self, buffer not None, Py_ssize_t offset, Py_ssize_t count, tuple rulers not None):
        cdef int i, k
        cdef tuple bounds
        if offset < 0 or count < 0 or offset % <Py_ssize_t>sizeof(double):
            raise ValueError("offset and count of cells must not be negative, and the offset a multiple of 8")
        if len(rulers) > MAX_RULERS:
            raise ValueError("too many rulers")
        for i in range(MAX_RULERS):
            self._bound_counts[i] = -1
        for i in range(<int>len(rulers)):
            bounds = rulers[i]
            if len(bounds) > MAX_BOUNDS:
                raise ValueError("too many bounds")
            for k in range(<int>len(bounds)):
                self._bounds[i][k] = bounds[k]
            self._bound_counts[i] = <int>len(bounds)
        PyObject_GetBuffer(buffer, &self._view, PyBUF_WRITABLE | PyBUF_SIMPLE)
        self._has_view = True
        if count > (self._view.len - offset) // <Py_ssize_t>sizeof(double):
            raise ValueError("cells lie outside of the buffer")
        self._cells = <double *>(<char *>self._view.buf + offset)
        self._count = count

    def __dealloc__(self):
        if self._has_view:
            PyBuffer_Release(&self._view)

    cdef int c_add(self, Py_ssize_t index, double amount) except -1:
        if index < 0 or index >= self._count:
            raise IndexError(f"no cell {index}")
        if not amount >= 0:
            raise ValueError("counters don't go down")
        self._cells[index] += amount
        return 0

    cdef int c_set(self, Py_ssize_t index, double value) except -1:
        if index < 0 or index + 1 >= self._count:
            raise IndexError(f"no cell {index}")
        self._cells[index] = value
        self._cells[index + 1] = 1.0
        return 0

    cdef int c_observe(self, Py_ssize_t histogram, double value) except -1:
        cdef Py_ssize_t first = histogram & C_INDEX_MASK
        cdef Py_ssize_t ruler = histogram >> C_RULER_SHIFT
        cdef int i = 0
        cdef int bound_count
        if ruler < 0 or ruler >= MAX_RULERS or self._bound_counts[ruler] < 0:
            raise IndexError(f"no ruler {ruler}")
        bound_count = self._bound_counts[ruler]
        if first + 1 + bound_count >= self._count:
            raise IndexError(f"no cell {first}")
        if not value > 0:  # a clock that was set back, or not a number
            value = 0.0
        while i < bound_count and value > self._bounds[ruler][i]:
            i += 1
        self._cells[first] += value
        self._cells[first + 1 + i] += 1.0
        return 0

    cpdef inc(self, Py_ssize_t index):
        self.c_add(index, 1.0)

    cpdef add(self, Py_ssize_t index, double amount):
        self.c_add(index, amount)

    cpdef set(self, Py_ssize_t index, double value):
        self.c_set(index, value)

    cpdef observe(self, Py_ssize_t histogram, double value):
        self.c_observe(histogram, value)

    def get(self, Py_ssize_t index):
        index &= C_INDEX_MASK
        if index >= self._count:
            raise IndexError(f"no cell {index}")
        return self._cells[index]
