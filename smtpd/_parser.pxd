# The parser's classes for other Cython modules; what the attributes mean is in _parser.pyi.
cdef enum Verb:
    V_NONE
    V_OTHER
    V_FORBIDDEN
    V_HELO
    V_EHLO
    V_LHLO
    V_MAIL
    V_RCPT
    V_DATA
    V_BDAT
    V_RSET
    V_NOOP
    V_VRFY
    V_EXPN
    V_HELP
    V_QUIT
    V_STARTTLS
    V_AUTH
    V_XCLIENT
    V_ETRN
    V_COUNT

cdef enum LineFlag:
    L_BARE_LF = 1
    L_BARE_CR = 2
    L_NUL = 4
    L_CONTROL = 8
    L_8BIT = 16
    L_TOO_LONG = 32


cdef class CommandReader:
    cdef readonly bytes argument
    cdef readonly bytes word
    cdef readonly int verb
    cdef readonly int flags
    cdef readonly bint is_complete
    cdef readonly bint has_partial
    cdef bint _ends_in_cr
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _total
    cdef Py_ssize_t _capacity
    cdef unsigned char *_partial
    cdef int _keep(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef void _drop_partial(self) noexcept
    cdef int _split(self, const unsigned char *text, Py_ssize_t size) except -1
    cdef int _take_hello(self) except -1
    cpdef Py_ssize_t read(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1


cdef class BodyDecoder:
    cdef public bint is_keeping
    cdef readonly bytes chunk
    cdef readonly bint is_done
    cdef readonly bint is_in_header
    cdef readonly bint has_8bit
    cdef readonly Py_ssize_t size_bytes
    cdef readonly Py_ssize_t raw_bytes
    cdef readonly Py_ssize_t bare_lf_count
    cdef readonly Py_ssize_t bare_cr_count
    cdef readonly Py_ssize_t nul_count
    cdef readonly Py_ssize_t long_line_count
    cdef readonly Py_ssize_t longest_line_bytes
    cdef readonly Py_ssize_t received_count
    cdef readonly Py_ssize_t header_bytes
    cdef int _state
    cdef int _line_start
    cdef int _matched
    cdef bint _is_chunked
    cdef Py_ssize_t _line_bytes
    cdef Py_ssize_t _chunk_left
    cdef char *_out
    cdef Py_ssize_t _out_bytes
    cdef Py_ssize_t _capacity
    cdef void _match_name(self, const unsigned char *text, Py_ssize_t size) noexcept nogil
    cdef void _add_text(self, const unsigned char *text, Py_ssize_t size) noexcept nogil
    cdef void _end_line(self) noexcept nogil
    cdef void _put(self, const void *data, Py_ssize_t size) noexcept nogil
    cdef Py_ssize_t _scan(self, const unsigned char *data, Py_ssize_t size) noexcept nogil
    cdef void _survey(self, const unsigned char *data, Py_ssize_t size) noexcept nogil
    cdef const unsigned char *_skip_lines(
        self, const unsigned char *p, const unsigned char *end, const unsigned char **surveyed
    ) noexcept nogil
    cpdef start_data(self)
    cpdef start_chunk(self, Py_ssize_t size_bytes)
    cpdef Py_ssize_t take(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1
