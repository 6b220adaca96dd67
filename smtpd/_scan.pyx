# cython: auto_pickle=False, autotestdict=False
# Paths and header fields: scanners. `_scan.pyi` is the documented face; `_parser` hands them on.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

cdef enum:
    LF = 0x0A
    CR = 0x0D
    LOCAL_PART = 64  # RFC 5321 4.5.3.1.1
    DOMAIN = 255  # RFC 5321 4.5.3.1.2
    LABEL = 63  # RFC 1035 2.3.4
    HEADER_VALUE = 1000

# Classes of octets, by bit.
cdef enum:
    IS_ATEXT = 1  # RFC 5322 3.2.3, without "%" and "!", which may route
    IS_LDH = 2  # letter, digit, hyphen

cdef unsigned char CLASSES[256]


cdef _fill_classes():
    cdef int code
    for code in range(256):
        CLASSES[code] = IS_ATEXT | IS_LDH if code < 128 and chr(code).isalnum() else 0
    for code in b"#$&'*+-/=?^_`{|}~":
        CLASSES[code] |= IS_ATEXT
    CLASSES[<int>c"-"] |= IS_LDH


_fill_classes()


cdef octets _start_of(bytes value) except NULL:
    if value is None:
        raise TypeError("bytes are needed, not None")
    return <octets>PyBytes_AS_STRING(value)


cdef octets _skip_word(octets p, octets end, int octet_class) noexcept nogil:
    while p < end and CLASSES[p[0]] & octet_class:
        p += 1
    return p


cdef octets _skip_local_part(octets p, octets end) noexcept nogil:
    """The end of the dot-atom at `p`, or NULL."""
    cdef octets start = p
    cdef octets atom
    while True:
        atom = p
        p = _skip_word(p, end, IS_ATEXT)
        if p == atom or p - start > LOCAL_PART:
            return NULL
        if p == end or p[0] != c".":
            return p
        p += 1


cdef octets _skip_domain(octets p, octets end) noexcept nogil:
    """The end of the host name at `p`, or NULL."""
    cdef octets start = p
    cdef octets label
    while True:
        label = p
        p = _skip_word(p, end, IS_LDH)
        if p == label or p - label > LABEL or label[0] == c"-" or p[-1] == c"-" or p - start > DOMAIN:
            return NULL
        if p == end or p[0] != c".":
            return p
        p += 1


@cython.final
cdef class PathScan:
    def __cinit__(self):
        self.mailbox = self.rest = b""
        self._known_domain = ""

    cpdef bint read(self, bytes argument, bint is_recipient) except -1:
        cdef octets p = _start_of(argument)
        cdef octets end = p + PyBytes_GET_SIZE(argument)
        cdef octets keyword = <octets>(<const char *>b"TO:<" if is_recipient else <const char *>b"FROM:<")
        cdef octets mailbox
        cdef octets domain
        cdef Py_ssize_t i, mailbox_size
        while keyword[0]:
            if p == end or to_upper(p[0]) != keyword[0]:
                return False
            p += 1
            keyword += 1
        mailbox = domain = p
        self._domain_size = 0
        if is_recipient or p == end or p[0] != c">":
            p = _skip_local_part(p, end)
            if p == NULL or p == end or p[0] != c"@":
                return False
            domain = p + 1
            p = _skip_domain(domain, end)
            if p == NULL or p == end or p[0] != c">":
                return False
            self._domain_size = p - domain
            for i in range(self._domain_size):
                self._domain[i] = domain[i] + 32 if 65 <= domain[i] <= 90 else domain[i]
        mailbox_size = p - mailbox
        p += 1
        if p < end and not is_blank(p[0]):
            return False
        while p < end and is_blank(p[0]):
            p += 1
        self.mailbox = (<const char *>mailbox)[:mailbox_size]
        self.rest = (<const char *>p)[:end - p] if p < end else b""
        return True

    cpdef str domain(self):
        if self._domain_size != self._known_size or memcmp(self._domain, self._known, <size_t>self._domain_size):
            self._known_domain = self._domain[:self._domain_size].decode("ascii")
            self._known_size = self._domain_size
            memcpy(self._known, self._domain, <size_t>self._domain_size)
        return self._known_domain


def scan_path(bytes argument, bint is_recipient):
    cdef PathScan scan = PathScan()
    if not scan.read(argument, is_recipient):
        return None
    return scan.mailbox, scan.domain(), scan.rest


cdef octets _end_of_line(octets p, octets end) noexcept nogil:
    """Behind the LF that ends the line at `p`, or `end`."""
    cdef octets found = <octets>memchr(p, LF, <size_t>(end - p))
    return end if found == NULL else found + 1


cdef Py_ssize_t _text_size(octets p, octets end) noexcept nogil:
    """Octets of the line p..end without its line end."""
    if end > p and end[-1] == LF:
        end -= 1
        if end > p and end[-1] == CR:
            end -= 1
    return end - p


cdef octets _skip_name(octets p, octets end, octets name, Py_ssize_t size) noexcept nogil:
    """Behind the colon when the line starts with the field name (lower case), else NULL."""
    cdef Py_ssize_t i
    if end - p <= size:
        return NULL
    for i in range(size):
        if to_upper(p[i]) != to_upper(name[i]):
            return NULL
    p += size
    while p < end and is_blank(p[0]):
        p += 1
    return p + 1 if p < end and p[0] == c":" else NULL


cpdef bytes find_header(bytes head, bytes name):
    cdef octets line = _start_of(head)
    cdef octets end = line + PyBytes_GET_SIZE(head)
    cdef octets field_name = _start_of(name)
    cdef Py_ssize_t name_size = PyBytes_GET_SIZE(name)
    cdef octets following
    cdef octets text
    cdef char value[HEADER_VALUE]
    cdef Py_ssize_t size, value_size = 0
    while line < end:
        following = _end_of_line(line, end)
        size = _text_size(line, following)
        if size == 0:
            return None
        text = _skip_name(line, line + size, field_name, name_size)
        if text != NULL:
            break
        line = following
    else:
        return None
    size -= text - line
    while True:
        if value_size == 0:
            while size and is_blank(text[0]):
                text += 1
                size -= 1
        size = min(size, HEADER_VALUE - value_size)
        memcpy(value + value_size, text, <size_t>size)
        value_size += size
        line = following
        if line == end or not is_blank(line[0]) or value_size == HEADER_VALUE:
            break
        following = _end_of_line(line, end)
        text = line
        size = _text_size(line, following)
    while value_size and is_blank(value[value_size - 1]):
        value_size -= 1
    return value[:value_size]
