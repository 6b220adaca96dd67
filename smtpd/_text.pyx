# cython: auto_pickle=False, autotestdict=False
# Short texts that are made anew for each mail; _text.pyi is the documented face.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef extern from "Python.h":
    str new_str "PyUnicode_New"(Py_ssize_t size, Py_UCS4 largest)
    bytes new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size)
    unsigned char *str_data "PyUnicode_1BYTE_DATA"(str text)
    bint is_ascii "PyUnicode_IS_ASCII"(str text)
    Py_ssize_t str_size "PyUnicode_GET_LENGTH"(str text)

cdef enum:
    BASE = 52

cdef const char *DIGITS = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


cpdef str join_number(long long value, int digits, str tail):
    cdef Py_ssize_t tail_size, i
    cdef unsigned long long rest = <unsigned long long>value
    cdef str text
    cdef unsigned char *out
    if tail is None or not is_ascii(tail) or value < 0 or digits < 0:
        raise ValueError("a number is not negative, and its tail is ASCII")
    tail_size = str_size(tail)
    text = new_str(digits + tail_size, 127)
    out = str_data(text)
    for i in range(digits):
        out[digits - 1 - i] = DIGITS[rest % BASE]
        rest //= BASE
    if rest:
        raise OverflowError("number does not fit into its digits")
    memcpy(out + digits, str_data(tail), <size_t>tail_size)
    return text


cdef inline bint _is_plain(const unsigned char *at, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    cdef unsigned char odd = 0
    for i in range(size):  # without a branch, for the compiler to take many octets at once
        odd |= (at[i] < 0x20) | (at[i] > 0x7E)
    return not odd


cpdef bint is_plain(str text) except -1:
    if text is None:
        raise TypeError("a text is needed, not None")
    return is_ascii(text) and _is_plain(str_data(text), str_size(text))


cpdef bint are_plain(bytes octets) except -1:
    if octets is None:
        raise TypeError("bytes are needed, not None")
    return _is_plain(<const unsigned char *>PyBytes_AS_STRING(octets), PyBytes_GET_SIZE(octets))


cpdef bytes make_line(bytes head, str text):
    cdef Py_ssize_t head_size, size
    cdef bytes line
    cdef char *out
    if head is None or text is None or not is_ascii(text):
        raise ValueError("the text of a line is ASCII")
    head_size, size = PyBytes_GET_SIZE(head), str_size(text)
    line = new_bytes(NULL, head_size + size + 2)
    out = PyBytes_AS_STRING(line)
    memcpy(out, PyBytes_AS_STRING(head), <size_t>head_size)
    memcpy(out + head_size, str_data(text), <size_t>size)
    memcpy(out + head_size + size, b"\r\n", 2)
    return line


cpdef bytes join_pieces(tuple pieces):
    cdef Py_ssize_t size = 0
    cdef bytes piece
    cdef bytes whole
    cdef char *out
    for piece in pieces:
        if piece is None:
            raise TypeError("bytes are needed, not None")
        size += PyBytes_GET_SIZE(piece)
    whole = new_bytes(NULL, size)
    out = PyBytes_AS_STRING(whole)
    for piece in pieces:
        size = PyBytes_GET_SIZE(piece)
        memcpy(out, PyBytes_AS_STRING(piece), <size_t>size)
        out += size
    return whole
