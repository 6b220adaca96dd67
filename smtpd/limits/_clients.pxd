from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef struct Row:
    uint64_t key
    int64_t seen_us
    int64_t full_at_us[3]  # when the bucket of each rate will be full again
    int64_t unused[3]  # a row is a cache line


cdef class ClientTable:
    cdef object _memory
    cdef unsigned char *_base
    cdef Py_ssize_t _size_bytes
    cdef uint64_t _seed
    cdef Row *_rows
    cdef uint32_t *_counts  # [bank][row]
    cdef int64_t *_totals  # [bank]
    cdef int64_t *_bank_count

    cpdef Py_ssize_t find(self, uint64_t key, int64_t now_us) noexcept
    cpdef long connections(self, Py_ssize_t row) noexcept
    cpdef long host_connections(self) noexcept
    cpdef void enter(self, Py_ssize_t row, int bank) noexcept
    cpdef void leave(self, Py_ssize_t row, int bank) noexcept
    cpdef bint take(self, Py_ssize_t row, int rate, int64_t now_us, int64_t interval_us, int64_t burst, int64_t count) noexcept
    cpdef void lower(self, Py_ssize_t row, int rate, int64_t full_at_us) noexcept

    cdef Py_ssize_t _claim(self, Py_ssize_t first, uint64_t key, int64_t now_us) noexcept
    cdef bint _is_idle(self, Py_ssize_t row, int64_t now_us) noexcept


cpdef uint64_t key_of(str address) noexcept
