# cython: auto_pickle=False, autotestdict=False
# Lists and tables of plain ints for what is counted at each command; _tally.pyi is the documented face.
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc

cdef enum:
    FIRST_CAPACITY = 8
    PLACES = 512  # as the array sizes in _tally.pxd, a power of two
    PAIRS_MAX = 384
    NOTHING = -2147483647


@cython.final
cdef class Tally:
    def __dealloc__(self):
        PyMem_Free(self._pairs)

    cpdef int add(self, int pair) except -1:
        cdef int capacity
        cdef void *grown
        if self.count == self._capacity:
            capacity = max(2 * self._capacity, FIRST_CAPACITY)
            grown = PyMem_Realloc(self._pairs, <size_t>capacity * sizeof(int))
            if grown == NULL:
                raise MemoryError
            self._pairs = <int *>grown
            self._capacity = capacity
        self._pairs[self.count] = pair
        self.count += 1
        return 0

    cpdef int at(self, int position) except? -1:
        if not 0 <= position < self.count:
            raise IndexError(f"no pair {position}")
        return self._pairs[position]

    cpdef clear(self):
        self.count = 0
        if self._capacity > FIRST_CAPACITY:
            PyMem_Free(self._pairs)
            self._pairs = NULL
            self._capacity = 0


@cython.final
cdef class PairCounts:
    def __dealloc__(self):
        PyMem_Free(self._pairs)

    cpdef int add(self, int pair) except -1:
        cdef int i, capacity
        cdef void *grown
        for i in range(self._count):
            if self._pairs[2 * i] == pair:
                self._pairs[2 * i + 1] += 1
                return 0
        if self._count == self._capacity:
            capacity = max(2 * self._capacity, FIRST_CAPACITY)
            grown = PyMem_Realloc(self._pairs, <size_t>capacity * 2 * sizeof(int))
            if grown == NULL:
                raise MemoryError
            self._pairs = <int *>grown
            self._capacity = capacity
        self._pairs[2 * self._count] = pair
        self._pairs[2 * self._count + 1] = 1
        self._count += 1
        return 0

    cpdef dict as_dict(self):
        cdef int i
        return {self._pairs[2 * i]: self._pairs[2 * i + 1] for i in range(self._count)}


@cython.final
cdef class PairCells:
    def __cinit__(self):
        cdef int i
        for i in range(PLACES):
            self._pairs[i] = NOTHING

    cdef int _place_of(self, int pair) noexcept nogil:
        """Where the pair is, or belongs."""
        cdef unsigned int place = (<unsigned int>pair * 2654435761U) >> 23
        while self._pairs[place] != pair and self._pairs[place] != NOTHING:
            place = (place + 1) & (PLACES - 1)
        return <int>place

    cpdef bint put(self, int pair, int reply, int command) noexcept:
        cdef int place = self._place_of(pair)
        if self._pairs[place] == NOTHING:
            if self._count == PAIRS_MAX:
                return False
            self._count += 1
        self._pairs[place] = pair
        self._replies[place] = reply
        self._commands[place] = command
        return True

    cpdef int find(self, int pair) noexcept:
        cdef int place = self._place_of(pair)
        return place if self._pairs[place] == pair else -1

    cpdef int reply_at(self, int place) noexcept:
        return self._replies[place & (PLACES - 1)]

    cpdef int command_at(self, int place) noexcept:
        return self._commands[place & (PLACES - 1)]
