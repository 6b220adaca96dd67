# cython: auto_pickle=False, autotestdict=False
# Octets to commands and bodies. `_parser.pyi` is the documented face; `tests/oracle` says the same in plain Python.
#
# Scanners take pointer and length, touch no Python object and raise nothing. Both classes are state machines over octets: what
# they report depends on the octets alone and never on how these were cut into pieces. All reading is bounded by `end`, which
# is checked against the bytearray once for each call.
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcpy
from smtpd._scan cimport octets, is_blank, to_upper
from smtpd._scan import find_header as find_header, scan_path as scan_path

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *bytes_data "PyBytes_AS_STRING"(PyObject *value) nogil
    int resize_bytes "_PyBytes_Resize"(PyObject **value, Py_ssize_t size) except -1

cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #define LOW_PART(n) \\
        part = _mm_loadu_si128((const __m128i *)octets + n); \\
        all = _mm_or_si128(all, part); \\
        low = _mm_cmpeq_epi8(_mm_min_epu8(part, most), part); \\
        marks |= (uint64_t)(unsigned)_mm_movemask_epi8(low) << (16 * n);
    /* A bit for each of 64 octets that is CR (0x0D) or less, and whether one of them is 0x80 or more. */
    static inline uint64_t low_marks(const unsigned char *octets, int *high)
    {
        const __m128i most = _mm_set1_epi8(0x0D);
        __m128i part, low, all = _mm_setzero_si128();
        uint64_t marks = 0;
        LOW_PART(0) LOW_PART(1) LOW_PART(2) LOW_PART(3)
        *high = _mm_movemask_epi8(all);
        return marks;
    }
    #else
    static inline uint64_t low_marks(const unsigned char *octets, int *high)
    {
        uint64_t marks = 0;
        unsigned char all = 0;
        for (int i = 0; i < 64; i++) {
            marks |= (uint64_t)(octets[i] <= 0x0D) << i;
            all |= octets[i];
        }
        *high = all >> 7;
        return marks;
    }
    #endif
    """
    uint64_t low_marks(const unsigned char *octets, int *high) nogil
    int first_bit "__builtin_ctzll"(uint64_t bits) nogil

cdef enum:
    NUL = 0x00
    TAB = 0x09
    LF = 0x0A
    CR = 0x0D
    SPACE = 0x20
    DEL = 0x7F
    TLS_HANDSHAKE = 0x16
    TLS_MAJOR_VERSION = 0x03
    WORD_LENGTH = 32  # octets of an unknown verb that are shown
    VERB_LENGTH = 8  # octets of the longest known verb
    TEXT_LINE = 998  # RFC 5321 4.5.3.1.6, without CRLF
    SHORT = 8  # spans up to here are searched octet by octet
    BLOCK = 64  # octets that are looked at together

cdef uint64_t HIGHS = 0x8080808080808080ULL

# States of BodyDecoder; the octets in brackets are held back.
cdef enum:
    IN_LINE  # anywhere but after CRLF; after a bare LF too, since no dot is special there
    AFTER_CRLF  # DATA only: a dot is special
    AFTER_CR  # (CR)
    AFTER_DOT  # CRLF (.)
    AFTER_DOT_CR  # CRLF (. CR)
    ENDED  # CRLF . CRLF

cdef uint64_t VERB_KEYS[40]
cdef Py_ssize_t VERB_SIZES[40]
cdef int VERB_CODES[40]
cdef int VERB_KEY_COUNT = 0

VERB_NONE = V_NONE
VERB_OTHER = V_OTHER
VERB_FORBIDDEN = V_FORBIDDEN
VERB_HELO = V_HELO
VERB_EHLO = V_EHLO
VERB_LHLO = V_LHLO
VERB_MAIL = V_MAIL
VERB_RCPT = V_RCPT
VERB_DATA = V_DATA
VERB_BDAT = V_BDAT
VERB_RSET = V_RSET
VERB_NOOP = V_NOOP
VERB_VRFY = V_VRFY
VERB_EXPN = V_EXPN
VERB_HELP = V_HELP
VERB_QUIT = V_QUIT
VERB_STARTTLS = V_STARTTLS
VERB_AUTH = V_AUTH
VERB_XCLIENT = V_XCLIENT
VERB_ETRN = V_ETRN
VERB_COUNT = V_COUNT
VERB_NAMES = (
    "other", "other", "other", "helo", "ehlo", "lhlo", "mail", "rcpt", "data", "bdat", "rset", "noop", "vrfy", "expn", "help",
    "quit", "starttls", "auth", "xclient", "etrn",
)

LINE_BARE_LF = L_BARE_LF
LINE_BARE_CR = L_BARE_CR
LINE_NUL = L_NUL
LINE_CONTROL = L_CONTROL
LINE_8BIT = L_8BIT
LINE_TOO_LONG = L_TOO_LONG


cdef uint64_t _verb_key(octets word, Py_ssize_t size) noexcept nogil:
    """A word of at most 8 octets as a number, letters in upper case."""
    cdef uint64_t key = 0
    cdef Py_ssize_t i
    for i in range(size):
        key = key << 8 | to_upper(word[i])
    return key


cdef _fill_verbs():
    global VERB_KEY_COUNT
    cdef int code
    cdef bytes word
    words = [(name.encode(), number) for number, name in enumerate(VERB_NAMES) if name != "other"]
    words += [
        (name, V_FORBIDDEN)
        for name in (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT", b"TRACE", b"PATCH", b"PRI", b"PROXY")
    ]
    for word, code in words:
        VERB_KEYS[VERB_KEY_COUNT] = _verb_key(word, len(word))
        VERB_SIZES[VERB_KEY_COUNT] = len(word)
        VERB_CODES[VERB_KEY_COUNT] = code
        VERB_KEY_COUNT += 1


_fill_verbs()


cdef inline octets _find(octets p, octets end, int octet) noexcept nogil:
    """The first such octet, or `end`."""
    cdef octets found = <octets>memchr(p, octet, <size_t>(end - p))
    return end if found == NULL else found


cdef bint _has_high_octet(octets p, octets end) noexcept nogil:
    """Whether an octet >= 0x80 is there."""
    cdef uint64_t words[4]
    cdef unsigned char rest = 0
    while end - p >= 32:
        memcpy(words, p, 32)
        if (words[0] | words[1] | words[2] | words[3]) & HIGHS:
            return True
        p += 32
    while p < end:
        rest |= p[0]
        p += 1
    return rest >= 0x80


cdef int _line_flags(octets p, octets end) noexcept nogil:
    """LINE_* flags of a line without its end."""
    cdef int flags = 0
    while p < end:
        if p[0] < SPACE:
            if p[0] == CR:
                flags |= L_BARE_CR
            elif p[0] == NUL:
                flags |= L_NUL
            elif p[0] != TAB:
                flags |= L_CONTROL
        elif p[0] >= DEL:
            flags |= L_8BIT if p[0] > DEL else L_CONTROL
        p += 1
    return flags


cdef int _find_verb(octets word, Py_ssize_t size) noexcept nogil:
    """The code of a word that is not empty."""
    cdef uint64_t key
    cdef Py_ssize_t i
    if size <= VERB_LENGTH:
        key = _verb_key(word, size)
        for i in range(VERB_KEY_COUNT):
            if VERB_KEYS[i] == key and VERB_SIZES[i] == size:  # NULs add nothing to a key
                return VERB_CODES[i]
    if size < 2 or word[size - 1] != c":":
        return V_OTHER
    for i in range(size - 1):  # a header field's name, RFC 5322 3.6.8
        if word[i] <= SPACE or word[i] >= DEL or word[i] == c":":
            return V_OTHER
    return V_FORBIDDEN


cdef int _check_range(bytearray data, Py_ssize_t start, Py_ssize_t end) except -1:
    if data is None or not 0 <= start <= end <= PyByteArray_GET_SIZE(data):
        raise ValueError(f"no range of the buffer: {start}..{end}")
    return 0


@cython.final
cdef class CommandReader:
    def __init__(self, Py_ssize_t limit=2048):
        if limit < 2:
            raise ValueError(f"limit of {limit} octets leaves no room for a line end")
        self._drop_partial()
        self._limit = limit
        self.verb = V_NONE
        self.flags = 0
        self.is_complete = False
        self.argument = b""
        self.word = b""

    def __dealloc__(self):
        PyMem_Free(self._partial)

    cdef int _keep(self, octets data, Py_ssize_t size) except -1:
        """Add octets to the unfinished line: the first `_limit` of the line are kept, the others only counted."""
        cdef Py_ssize_t kept = min(self._total, self._limit)
        cdef Py_ssize_t more = min(size, self._limit - kept)
        cdef Py_ssize_t capacity
        cdef void *grown
        if kept + more > self._capacity:
            capacity = min(max(kept + more, 2 * self._capacity, 32), self._limit)
            grown = PyMem_Realloc(self._partial, <size_t>capacity)
            if grown == NULL:
                raise MemoryError
            self._partial = <unsigned char *>grown
            self._capacity = capacity
        if more:
            memcpy(self._partial + kept, data, <size_t>more)
        self._total += size
        self._ends_in_cr = data[size - 1] == CR
        self.has_partial = True
        return 0

    cdef void _drop_partial(self) noexcept:
        PyMem_Free(self._partial)
        self._partial = NULL
        self._capacity = 0
        self._total = 0
        self._ends_in_cr = False
        self.has_partial = False

    cdef int _split(self, octets text, Py_ssize_t size) except -1:
        """Set verb, word and argument from a line without its end."""
        cdef octets p = text
        cdef octets end = text + size
        cdef octets word
        while p < end and is_blank(p[0]):
            p += 1
        while end > p and is_blank(end[-1]):
            end -= 1
        word = p
        while p < end and not is_blank(p[0]):
            p += 1
        self.verb = _find_verb(word, p - word) if p > word else V_NONE
        self.word = (<const char *>word)[:min(p - word, WORD_LENGTH)] if V_NONE < self.verb < V_HELO else b""
        while p < end and is_blank(p[0]):
            p += 1
        self.argument = (<const char *>p)[:end - p]
        return 0

    cdef int _take_hello(self) except -1:
        self._drop_partial()
        self.verb = V_FORBIDDEN
        self.word = b"\x16\x03"
        self.argument = b""
        self.flags = 0
        self.is_complete = True
        return 0

    cpdef Py_ssize_t read(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef octets p
        cdef octets found
        cdef octets text
        cdef Py_ssize_t size, taken, total, eol
        _check_range(data, start, end)
        self.is_complete = False
        p = <octets>PyByteArray_AS_STRING(data) + start
        size = end - start
        if size == 0:
            return end
        if self._total == 0:
            if p[0] == TLS_HANDSHAKE and size >= 2 and p[1] == TLS_MAJOR_VERSION:
                self._take_hello()
                return start + 2
        elif self._total == 1 and self._partial[0] == TLS_HANDSHAKE and p[0] == TLS_MAJOR_VERSION:
            self._take_hello()
            return start + 1
        found = <octets>memchr(p, LF, <size_t>size)
        if found == NULL:
            self._keep(p, size)
            return end
        taken = found - p + 1
        total = self._total + taken
        eol = 2 if (found[-1] == CR if taken > 1 else self._ends_in_cr) else 1
        text = p
        if self._total:
            self._keep(p, taken)
            text = self._partial
        size = min(total - eol, self._limit)
        self.flags = _line_flags(text, text + size)
        if eol == 1:
            self.flags |= L_BARE_LF
        if total > self._limit:
            self.flags |= L_TOO_LONG
        self._split(text, size)
        self._drop_partial()
        self.is_complete = True
        return start + taken


@cython.final
cdef class BodyDecoder:
    def __cinit__(self):
        self.is_keeping = True
        self.is_in_header = True

    cpdef start_data(self):
        self.is_done = False
        self._is_chunked = False
        self._state = self._line_start = AFTER_CRLF

    cpdef start_chunk(self, Py_ssize_t size_bytes):
        if size_bytes < 0:
            raise ValueError(f"chunk of {size_bytes} octets")
        self._is_chunked = True
        self._chunk_left = size_bytes
        self.is_done = size_bytes == 0

    def feed(self, bytearray data, Py_ssize_t start, Py_ssize_t end):
        cdef Py_ssize_t position = self.take(data, start, end)
        return position, self.chunk

    cpdef Py_ssize_t take(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef octets p
        cdef Py_ssize_t size, taken
        cdef PyObject *chunk = NULL
        _check_range(data, start, end)
        size = end - start
        if self._is_chunked and size > self._chunk_left:
            size = self._chunk_left
        self.chunk = b""
        if self.is_done or size == 0:
            return start
        p = <octets>PyByteArray_AS_STRING(data) + start
        self._out = NULL
        self._out_bytes = 0
        self._capacity = size + 1  # one octet more than was given: a CR that was held back
        if self.is_keeping:
            chunk = new_bytes(NULL, self._capacity)
            self._out = bytes_data(chunk)
        taken = self._scan(p, size)
        if taken < size and self._state != ENDED:  # bare LFs need more room than there is; now twice the rest suffices
            self._capacity = self._out_bytes + 2 * (size - taken) + 1
            resize_bytes(&chunk, self._capacity)
            self._out = bytes_data(chunk)
            taken += self._scan(p + taken, size - taken)
        self.raw_bytes += taken
        if self._is_chunked:
            self._chunk_left -= taken
            self.is_done = self._chunk_left == 0
        else:
            self.is_done = self._state == ENDED
        if self.is_in_header:
            self.header_bytes = self.size_bytes
        if chunk != NULL:
            if self._out_bytes != self._capacity:
                resize_bytes(&chunk, self._out_bytes)
            self.chunk = <bytes>chunk
            Py_DECREF(self.chunk)  # the attribute owns it now
        return start + taken

    def finish(self):
        cdef char rest[3]
        self._out = rest
        self._out_bytes = 0
        if self._state == AFTER_CR:
            self._put(b" ", 1)
            self._add_text(<octets><const char *>b" ", 1)
            self.bare_cr_count += 1
        if self._line_bytes:
            self._put(b"\r\n", 2)
            self._end_line()
        self._out = NULL
        self._state = self._line_start
        if self.is_in_header:
            self.header_bytes = self.size_bytes
        return rest[:self._out_bytes] if self.is_keeping else b""

    cdef inline void _put(self, const void *data, Py_ssize_t size) noexcept nogil:
        if self._out != NULL and size:
            memcpy(self._out + self._out_bytes, data, <size_t>size)
            self._out_bytes += size

    cdef void _match_name(self, octets text, Py_ssize_t size) noexcept nogil:
        """Follow the start of a header line: `_matched` letters of "received", then blanks, then a colon; -1 when it is over."""
        cdef Py_ssize_t i
        cdef octets name = <octets><const char *>b"RECEIVED"
        for i in range(size):
            if self._matched < 8 and to_upper(text[i]) == name[self._matched]:
                self._matched += 1
            elif self._matched < 8 or not is_blank(text[i]):
                if self._matched == 8 and text[i] == c":":
                    self.received_count += 1
                self._matched = -1
                return

    cdef inline void _add_text(self, octets text, Py_ssize_t size) noexcept nogil:
        """Count decoded octets inside a line."""
        cdef Py_ssize_t before = self._line_bytes
        if self._matched >= 0 and self.is_in_header:
            self._match_name(text, size)
        self.size_bytes += size
        self._line_bytes = before + size
        if self._line_bytes > self.longest_line_bytes:
            self.longest_line_bytes = self._line_bytes
            if before <= TEXT_LINE < self._line_bytes:
                self.long_line_count += 1
        elif before <= TEXT_LINE < self._line_bytes:
            self.long_line_count += 1

    cdef inline void _end_line(self) noexcept nogil:
        """Count a decoded CRLF."""
        if self._line_bytes == 0 and self.is_in_header:
            self.is_in_header = False
            self.header_bytes = self.size_bytes
        self.size_bytes += 2
        self._line_bytes = 0
        self._matched = 0

    cdef octets _skip_lines(self, octets start, octets end, octets *surveyed) noexcept nogil:
        """Take what stays as it is, 64 octets at a time: up to a dot that is special, a bare CR or LF, a NUL, or the last octets.

        For what is behind the header. Return the position behind, and leave the state there; before `surveyed` nothing is left
        to look for NULs and 8-bit octets.
        """
        cdef octets p = start
        cdef octets line = start - self._line_bytes  # where the line began, or would have in one piece
        cdef octets text
        cdef Py_ssize_t before = self._line_bytes
        cdef Py_ssize_t longest = self.longest_line_bytes
        cdef Py_ssize_t size = BLOCK
        cdef bint is_dotted = self._line_start == AFTER_CRLF
        cdef uint64_t marks
        cdef int high = 0
        cdef int all_high = 0
        while size and end - p >= BLOCK:
            marks = low_marks(p, &high)
            size = BLOCK
            while marks:
                text = p + first_bit(marks)
                marks &= marks - 1
                if text[0] == CR:
                    if text - p == BLOCK - 1:  # whether it is a bare one, the next block shows
                        size = BLOCK - 1
                        break
                    if text[1] != LF:
                        size = 0
                        break
                    marks &= marks - 1
                    if text - line > longest:
                        longest = text - line
                    if before <= TEXT_LINE < text - line:
                        self.long_line_count += 1
                    before = 0
                    line = text + 2
                    if is_dotted and line < end and line[0] == c".":
                        size = 0
                        break
                elif text[0] == LF or text[0] == NUL:
                    size = 0
                    break
            if size:
                p += size
                all_high |= high
        surveyed[0] = p
        if all_high:
            self.has_8bit = True
        if p < line:
            p = line
        if p > start:
            self._state = IN_LINE if p > line else self._line_start
            self.size_bytes += p - start
            self._line_bytes = p - line
            if self._line_bytes > longest:
                longest = self._line_bytes
            if before <= TEXT_LINE < self._line_bytes:
                self.long_line_count += 1
            self.longest_line_bytes = longest
        return p

    cdef Py_ssize_t _scan(self, octets data, Py_ssize_t size) noexcept nogil:
        """Decode up to the end of DATA, of the input, or of the room for output; return how many octets were taken.

        Octets that stay as they are wait between `kept` and `p` and are copied together before the next one that doesn't.
        """
        cdef octets p = data
        cdef octets kept = data
        cdef octets end = data + size
        cdef octets text
        cdef octets line_feed = data - 1  # the next one, or `end`: known as long as it is not before `p`
        cdef octets block_at = data  # from where on it is worth looking at whole blocks
        cdef octets surveyed = data
        cdef octets seen
        cdef Py_ssize_t patience = BLOCK
        cdef Py_ssize_t span = SHORT
        cdef int state = self._state
        while p < end:
            if state == IN_LINE or state == AFTER_CRLF:
                if state == AFTER_CRLF and p[0] == c".":
                    self._put(kept, p - kept)
                    p += 1
                    kept = p
                    state = AFTER_DOT
                    if p == end or p[0] == CR:
                        continue
                    state = IN_LINE
                if end - p >= BLOCK and p >= block_at and not self.is_in_header:
                    self._state = state
                    seen = p
                    text = self._skip_lines(p, end, &seen)
                    if seen > p:
                        self._survey(surveyed, p - surveyed)
                        surveyed = seen
                    patience = BLOCK if text > p else min(2 * patience, 64 * BLOCK)  # odd things come together
                    block_at = text + patience
                    if text > p:
                        p = text
                        state = self._state
                        continue
                text = p
                if span < SHORT:  # short lines tend to come together, and two calls cost more than a few steps
                    while p < end and p[0] != CR and p[0] != LF and p - text < SHORT:
                        p += 1
                if span >= SHORT or p - text == SHORT:
                    if line_feed < p:
                        line_feed = _find(p, end, LF)
                    p = _find(p, line_feed, CR)
                span = p - text
                if span:
                    self._add_text(text, span)
                    state = IN_LINE
                    if p == end:
                        break
                if p[0] == CR:
                    if end - p > 1 and p[1] == LF:
                        p += 2
                        self._end_line()
                        state = self._line_start
                    else:
                        self._put(kept, p - kept)
                        p += 1
                        kept = p
                        state = AFTER_CR
                    continue
                if self._out != NULL and self._out_bytes + (end - kept) + 1 > self._capacity:
                    break
                self._put(kept, p - kept)
                self._put(b"\r\n", 2)
                p += 1
                kept = p
                self.bare_lf_count += 1
                self._end_line()
                state = IN_LINE
            elif state == AFTER_DOT:
                if p[0] == CR:
                    p += 1
                    kept = p
                    state = AFTER_DOT_CR
                else:
                    state = IN_LINE
            elif p[0] != LF:  # the CR held back was a bare one
                self._put(b" ", 1)
                self._add_text(<octets><const char *>b" ", 1)
                self.bare_cr_count += 1
                state = IN_LINE
            elif state == AFTER_DOT_CR:
                p += 1
                kept = p
                state = ENDED
                break
            else:
                self._put(b"\r", 1)
                p += 1
                self._end_line()
                state = self._line_start
        self._put(kept, p - kept)
        self._survey(surveyed, p - surveyed)
        self._state = state
        return p - data

    cdef void _survey(self, octets data, Py_ssize_t size) noexcept nogil:
        """Count NULs and look for 8-bit octets."""
        cdef octets p = data
        cdef octets end = data + size
        if not self.has_8bit:
            self.has_8bit = _has_high_octet(p, end)
        p = <octets>memchr(p, NUL, <size_t>size)
        if p != NULL:
            while p < end:
                self.nul_count += p[0] == NUL
                p += 1
