# cython: auto_pickle=False, autotestdict=False
# The next hop's replies in, content out. `_wire.pyi` is the documented face; `tests/oracle` says the same in plain Python.
#
# Scanners take pointer and length, touch no Python object and raise nothing. All reading is bounded by `end`, which is checked
# against the buffer once for each call.
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memchr, memcpy
from smtpd._scan cimport octets

cdef enum:
    TAB = 0x09
    LF = 0x0A
    CR = 0x0D
    SPACE = 0x20
    DASH = 0x2D
    DOT = 0x2E
    LINE_BYTES = 4096
    LINES = 200
    DSN_DIGITS = 3  # of subject and of detail, RFC 3463 2

# States of BodyEncoder.
cdef enum:
    LINE_START  # nothing yet, or after CRLF
    IN_LINE
    AFTER_CR  # which is held back

LINE_LIMIT = LINE_BYTES
LINE_COUNT = LINES


cdef inline octets _find(octets p, octets end, int octet) noexcept nogil:
    """The first such octet, or `end`."""
    cdef octets found = <octets>memchr(p, octet, <size_t>(end - p))
    return end if found == NULL else found


cdef inline bint _is_digit(unsigned char octet) noexcept nogil:
    return c"0" <= octet <= c"9"


cdef octets _skip_number(octets p, octets end) noexcept nogil:
    """Behind a number of one to three digits, or `p` where there is none."""
    cdef octets start = p
    while p < end and p - start < DSN_DIGITS and _is_digit(p[0]):
        p += 1
    return p


cdef Py_ssize_t _dsn_size(octets p, octets end, unsigned char code_class) noexcept nogil:
    """Octets of the enhanced status code at `p` (RFC 3463 2) if it has this class and a blank or nothing follows, else 0."""
    cdef octets start = p
    cdef octets number
    if end - p < 5 or p[0] != code_class or p[1] != DOT:
        return 0
    number = p + 2
    p = _skip_number(number, end)
    if p == number or p == end or p[0] != DOT:
        return 0
    number = p + 1
    p = _skip_number(number, end)
    if p == number or (p < end and p[0] != SPACE and p[0] != TAB):
        return 0
    return p - start


@cython.final
cdef class ReplyReader:
    def __init__(self, Py_ssize_t limit_bytes=65536):
        self._limit = limit_bytes
        self.dsn = ""
        self.error = ""
        self.lines = []
        self._dsn_octets = b""

    def __dealloc__(self):
        PyMem_Free(self._held)

    @property
    def has_partial(self):
        return self._held_bytes > 0 or self._is_open

    cpdef Py_ssize_t read(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef octets base = <octets>PyByteArray_AS_STRING(data)
        cdef octets p
        cdef octets stop
        cdef octets line_feed
        if start < 0 or end < start or end > PyByteArray_GET_SIZE(data):
            raise ValueError("range is outside the buffer")
        self.is_complete = False
        if self.error:
            return end
        p = base + start
        stop = base + end
        while p < stop:
            line_feed = _find(p, stop, LF)
            if self._held_bytes + (line_feed - p) >= LINE_BYTES:
                return self._fail("line is too long", end)
            if self._total + self._held_bytes + (line_feed - p) >= self._limit:
                return self._fail("reply is too long", end)
            if line_feed == stop:
                self._hold(p, stop - p)
                return end
            if self._held_bytes:
                self._hold(p, line_feed - p)
                self._take_line(self._held, self._held + self._held_bytes)
                self._total += self._held_bytes + 1
                self._held_bytes = 0
            else:
                self._take_line(p, line_feed)
                self._total += line_feed - p + 1
            p = line_feed + 1
            if self.error:
                return end
            if not self._is_open:
                self._total = 0
                self.is_complete = True
                return p - base
        return end

    cdef object _fail(self, str error, Py_ssize_t end):
        self.error = error
        self._is_open = False
        self._held_bytes = 0
        return end

    cdef int _hold(self, octets p, Py_ssize_t size) except -1:
        cdef unsigned char *room
        cdef Py_ssize_t wanted = self._held_bytes + size
        if wanted > self._held_room:
            wanted = max(2 * wanted, 128)
            room = <unsigned char *>PyMem_Realloc(self._held, <size_t>wanted)
            if room == NULL:
                raise MemoryError
            self._held = room
            self._held_room = wanted
        memcpy(self._held + self._held_bytes, p, <size_t>size)
        self._held_bytes += size
        return 0

    cdef int _take_line(self, octets p, octets end) except -1:
        """A line without its LF."""
        cdef int code
        cdef bint is_last
        cdef Py_ssize_t size
        cdef bytes dsn
        while end > p and (end[-1] == CR or end[-1] == SPACE or end[-1] == TAB):
            end -= 1
        if end - p < 3 or not (c"2" <= p[0] <= c"5" and _is_digit(p[1]) and _is_digit(p[2])):
            self._fail("not a reply", 0)
            return 0
        if end - p > 3 and p[3] != SPACE and p[3] != DASH and p[3] != TAB:
            self._fail("not a reply", 0)
            return 0
        code = (p[0] - c"0") * 100 + (p[1] - c"0") * 10 + (p[2] - c"0")
        is_last = end - p == 3 or p[3] != DASH
        size = _dsn_size(p + 4, end, p[0]) if end - p > 4 else 0
        if not self._is_open:
            self.code = code
            self.lines = []
            self.dsn = ""
            if size:
                self._dsn_octets = PyBytes_FromStringAndSize(<const char *>p + 4, size)
                self.dsn = self._dsn_octets.decode("ascii")
        elif code != self.code:
            self._fail("lines of one reply have different codes", 0)
            return 0
        elif len(self.lines) >= LINES:
            self._fail("reply has too many lines", 0)
            return 0
        elif size:
            dsn = PyBytes_FromStringAndSize(<const char *>p + 4, size)
            if not self.dsn or dsn != self._dsn_octets:
                size = 0
        p += 4 if end - p > 3 else 3
        if size:
            p += size
            while p < end and (p[0] == SPACE or p[0] == TAB):
                p += 1
        self.lines.append(PyBytes_FromStringAndSize(<const char *>p, end - p))
        self._is_open = not is_last
        return 0


@cython.final
cdef class BodyEncoder:
    def __init__(self, bint is_stuffing):
        self._is_stuffing = is_stuffing
        self._state = LINE_START

    cpdef bytes feed(self, bytes data):
        cdef octets start = <octets>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef int state = self._state
        cdef bytes result
        self._is_changed = False
        self._out = NULL
        self._scan(start, size)
        if not self._is_changed:
            return data
        result = PyBytes_FromStringAndSize(NULL, self._out_bytes)
        self._out = <unsigned char *>PyBytes_AS_STRING(result)
        self._state = state
        self._scan(start, size)
        return result

    cpdef bytes finish(self):
        cdef int state = self._state
        self._state = LINE_START
        if state == LINE_START:
            return b""
        return b" \r\n" if state == AFTER_CR else b"\r\n"

    cdef void _put(self, octets p, Py_ssize_t size) noexcept nogil:
        if self._out != NULL:
            memcpy(self._out + self._out_bytes, p, <size_t>size)
        self._out_bytes += size

    cdef void _scan(self, octets p, Py_ssize_t size) noexcept nogil:
        """What stays as it is waits between `kept` and `p`."""
        cdef octets kept = p
        cdef octets end = p + size
        cdef octets line_feed = p - 1  # the next one, or `end`: known as long as it is not before `p`
        cdef octets carriage_return
        cdef int state = self._state
        self._out_bytes = 0
        while p < end:
            if state == AFTER_CR:
                self._is_changed = True
                if p[0] == LF:
                    self._put(<octets><const char *>b"\r\n", 2)
                    p += 1
                    kept = p
                    state = LINE_START
                else:
                    self._put(<octets><const char *>b" ", 1)
                    state = IN_LINE
                continue
            if state == LINE_START:
                if p[0] == DOT and self._is_stuffing:
                    self._is_changed = True
                    self._put(kept, p - kept)
                    self._put(<octets><const char *>b".", 1)
                    kept = p
                state = IN_LINE
            if line_feed < p:
                line_feed = _find(p, end, LF)
            carriage_return = _find(p, line_feed, CR)
            if carriage_return == line_feed:
                p = line_feed
                if p == end:
                    break
                self._is_changed = True
                self._put(kept, p - kept)
                self._put(<octets><const char *>b"\r\n", 2)
                p += 1
                kept = p
                state = LINE_START
            elif carriage_return + 1 == line_feed and line_feed < end:
                p = line_feed + 1
                state = LINE_START
            else:
                self._is_changed = True
                self._put(kept, carriage_return - kept)
                p = carriage_return + 1
                kept = p
                if p == end:
                    state = AFTER_CR
                else:
                    self._put(<octets><const char *>b" ", 1)
        self._put(kept, p - kept)
        self._state = state
