# cython: auto_pickle=False, autotestdict=False
# The table of clients in shared memory; _clients.pyi is the documented face.
#
# No locks: a process that is killed while it holds one would stop all others. Keys and buckets change by compare-and-swap, counts of
# connections have one writer each. What two processes may get wrong at the same moment is told in _clients.pyi.
import mmap
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from "arpa/inet.h" nogil:
    int inet_pton(int family, const char *source, void *target)
    int AF_INET, AF_INET6

cdef extern from "sys/mman.h" nogil:
    int madvise(void *address, size_t length, int advice)
    int MADV_REMOVE

cdef extern from * nogil:
    """
    #define LOAD(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    #define SWAP_U64(p, e, d) __atomic_compare_exchange_n(p, e, d, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
    #define SWAP_I64(p, e, d) __atomic_compare_exchange_n(p, e, d, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
    """
    uint64_t load_key "LOAD"(uint64_t *place)
    int64_t load_us "LOAD"(int64_t *place)
    uint32_t load_count "LOAD"(uint32_t *place)
    void store_key "STORE"(uint64_t *place, uint64_t value)
    void store_us "STORE"(int64_t *place, int64_t value)
    void store_count "STORE"(uint32_t *place, uint32_t value)
    bint swap_key "SWAP_U64"(uint64_t *place, uint64_t *expected, uint64_t wanted)
    bint swap_us "SWAP_I64"(int64_t *place, int64_t *expected, int64_t wanted)

cdef enum:
    C_ROWS = 65536
    C_WAYS = 8
    C_BANKS = 512
    C_RATES = 3
    HEAD_BYTES = 8192  # number of banks and their totals; what follows begins on a page
    CLAIM_US = 1000000  # a row that was being claimed for so long belongs to a process that died

ROWS, WAYS, BANKS, RATES = C_ROWS, C_WAYS, C_BANKS, C_RATES
CONNECTION_RATE, MAIL_RATE, RECIPIENT_RATE = range(C_RATES)
cdef uint64_t CLAIMED = <uint64_t>0xFFFFFFFFFFFFFFFF


cpdef uint64_t key_of(str address) noexcept:
    cdef unsigned char octets[16]
    cdef bytes text
    cdef uint64_t key = 0
    cdef int i
    try:
        text = address.encode("ascii")
    except UnicodeEncodeError:
        return 0
    if inet_pton(AF_INET, text, octets) == 1:
        for i in range(4):
            key = key << 8 | octets[i]
        return 0x0000FFFF00000000 | key  # where a mapped address would have it: no IPv6 network is there
    if inet_pton(AF_INET6, text.partition(b"%")[0], octets) != 1:
        return 0
    if octets[10] == 0xFF and octets[11] == 0xFF:
        for i in range(10):
            if octets[i]:
                break
        else:
            for i in range(12, 16):
                key = key << 8 | octets[i]
            return 0x0000FFFF00000000 | key
    for i in range(8):
        key = key << 8 | octets[i]
    return key if key != CLAIMED and key else 1


cdef class ClientTable:
    def __cinit__(self, int fd, uint64_t seed):
        cdef Py_buffer view
        self._size_bytes = HEAD_BYTES + C_ROWS * sizeof(Row) + <Py_ssize_t>C_BANKS * C_ROWS * sizeof(uint32_t)
        if os.fstat(fd).st_size < self._size_bytes:
            os.ftruncate(fd, self._size_bytes)  # pages that nobody touches take no memory
        self._memory = mmap.mmap(fd, self._size_bytes)
        PyObject_GetBuffer(self._memory, &view, PyBUF_WRITABLE | PyBUF_SIMPLE)
        self._base = <unsigned char *>view.buf
        PyBuffer_Release(&view)  # the map lives as long as this object, and nobody else has it
        self._seed = seed
        self._bank_count = <int64_t *>self._base
        self._totals = self._bank_count + 1
        self._rows = <Row *>(self._base + HEAD_BYTES)
        self._counts = <uint32_t *>(self._base + HEAD_BYTES + C_ROWS * sizeof(Row))

    def open_bank(self, int bank):
        cdef int64_t known
        if not 0 <= bank < C_BANKS:
            raise IndexError(f"no bank {bank}")
        self.clear_bank(bank)
        known = load_us(self._bank_count)
        if bank >= known:
            store_us(self._bank_count, bank + 1)

    def clear_bank(self, int bank):
        cdef uint32_t *counts
        if not 0 <= bank < C_BANKS:
            raise IndexError(f"no bank {bank}")
        counts = self._counts + <Py_ssize_t>bank * C_ROWS
        store_us(self._totals + bank, 0)
        if madvise(counts, C_ROWS * sizeof(uint32_t), MADV_REMOVE) != 0:
            memset(counts, 0, C_ROWS * sizeof(uint32_t))

    cpdef Py_ssize_t find(self, uint64_t key, int64_t now_us) noexcept:
        cdef uint64_t mixed = (key ^ self._seed) * <uint64_t>0x9E3779B97F4A7C15
        cdef Py_ssize_t first, row, mine
        cdef int way
        if key == 0 or key == CLAIMED:
            return -1
        mixed ^= mixed >> 29
        mixed *= <uint64_t>0xBF58476D1CE4E5B9
        first = <Py_ssize_t>(mixed >> 40) % (C_ROWS // C_WAYS) * C_WAYS
        for way in range(C_WAYS):
            row = first + way
            if load_key(&self._rows[row].key) == key:
                store_us(&self._rows[row].seen_us, now_us)
                return row
        mine = self._claim(first, key, now_us)
        if mine < 0:
            return -1
        for row in range(first, mine):  # another process may have entered the same client: the first row stays
            if load_key(&self._rows[row].key) == key:
                store_key(&self._rows[mine].key, 0)
                return row
        return mine

    cdef Py_ssize_t _claim(self, Py_ssize_t first, uint64_t key, int64_t now_us) noexcept:
        # An empty row of the set, else the one that was idle for longest.
        cdef Py_ssize_t row, best
        cdef int64_t seen, oldest
        cdef uint64_t known
        cdef int attempt, rate
        for attempt in range(C_WAYS):
            best = -1
            oldest = 0
            for row in range(first, first + C_WAYS):
                known = load_key(&self._rows[row].key)
                if known == 0:
                    best = row
                    break
                seen = load_us(&self._rows[row].seen_us)
                if (best < 0 or seen < oldest) and self._is_idle(row, now_us):
                    best = row
                    oldest = seen
            if best < 0:
                return -1
            known = load_key(&self._rows[best].key)
            if known == CLAIMED and now_us - load_us(&self._rows[best].seen_us) < CLAIM_US:
                continue
            if swap_key(&self._rows[best].key, &known, CLAIMED):
                store_us(&self._rows[best].seen_us, now_us)
                for rate in range(C_RATES):
                    store_us(&self._rows[best].full_at_us[rate], 0)
                store_key(&self._rows[best].key, key)
                return best
        return -1

    cdef bint _is_idle(self, Py_ssize_t row, int64_t now_us) noexcept:
        cdef int rate
        if load_key(&self._rows[row].key) == CLAIMED:
            return now_us - load_us(&self._rows[row].seen_us) >= CLAIM_US
        for rate in range(C_RATES):
            if load_us(&self._rows[row].full_at_us[rate]) > now_us:
                return False
        return self.connections(row) == 0

    cpdef long connections(self, Py_ssize_t row) noexcept:
        cdef long total = 0
        cdef Py_ssize_t bank
        if not 0 <= row < C_ROWS:
            return 0
        for bank in range(<Py_ssize_t>min(load_us(self._bank_count), C_BANKS)):
            total += load_count(self._counts + bank * C_ROWS + row)
        return total

    cpdef long host_connections(self) noexcept:
        cdef long total = 0
        cdef Py_ssize_t bank
        for bank in range(<Py_ssize_t>min(load_us(self._bank_count), C_BANKS)):
            total += load_us(self._totals + bank)
        return total

    cpdef void enter(self, Py_ssize_t row, int bank) noexcept:
        cdef uint32_t *count
        if not 0 <= bank < C_BANKS:
            return
        store_us(self._totals + bank, load_us(self._totals + bank) + 1)
        if 0 <= row < C_ROWS:
            count = self._counts + <Py_ssize_t>bank * C_ROWS + row
            store_count(count, load_count(count) + 1)

    cpdef void leave(self, Py_ssize_t row, int bank) noexcept:
        cdef uint32_t *count
        if not 0 <= bank < C_BANKS:
            return
        if load_us(self._totals + bank) > 0:
            store_us(self._totals + bank, load_us(self._totals + bank) - 1)
        if 0 <= row < C_ROWS:
            count = self._counts + <Py_ssize_t>bank * C_ROWS + row
            if load_count(count):
                store_count(count, load_count(count) - 1)

    cpdef bint take(self, Py_ssize_t row, int rate, int64_t now_us, int64_t interval_us, int64_t burst, int64_t count) noexcept:
        # The bucket as one number (GCRA): when it will be full again. Each unit moves it on by an interval.
        cdef int64_t known, full_at
        cdef int64_t *place
        if not 0 <= row < C_ROWS or not 0 <= rate < C_RATES or interval_us <= 0:
            return True
        place = &self._rows[row].full_at_us[rate]
        known = load_us(place)
        while True:
            full_at = (known if known > now_us else now_us) + count * interval_us
            if full_at - now_us > burst * interval_us:
                return False
            if swap_us(place, &known, full_at):
                return True

    cpdef void lower(self, Py_ssize_t row, int rate, int64_t full_at_us) noexcept:
        cdef int64_t known
        cdef int64_t *place
        if not 0 <= row < C_ROWS or not 0 <= rate < C_RATES:
            return
        place = &self._rows[row].full_at_us[rate]
        known = load_us(place)
        while known < full_at_us and not swap_us(place, &known, full_at_us):
            pass

    def key_at(self, Py_ssize_t row):
        if not 0 <= row < C_ROWS:
            raise IndexError(f"no row {row}")
        return load_key(&self._rows[row].key)
