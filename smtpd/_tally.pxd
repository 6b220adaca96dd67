# The C face of _tally; _tally.pyi is the documented one.

cdef class Tally:
    cdef readonly int count
    cdef int _capacity
    cdef int *_pairs

    cpdef int add(self, int pair) except -1
    cpdef int at(self, int position) except? -1
    cpdef clear(self)


cdef class PairCounts:
    cdef int _count
    cdef int _capacity
    cdef int *_pairs  # each pair and, behind it, how often it came

    cpdef int add(self, int pair) except -1
    cpdef dict as_dict(self)


cdef class PairCells:
    cdef int _pairs[512]
    cdef int _replies[512]
    cdef int _commands[512]
    cdef int _count

    cdef int _place_of(self, int pair) noexcept nogil
    cpdef bint put(self, int pair, int reply, int command) noexcept
    cpdef int find(self, int pair) noexcept
    cpdef int reply_at(self, int place) noexcept
    cpdef int command_at(self, int place) noexcept
