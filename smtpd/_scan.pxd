# What more than one scanner needs. A scanner takes pointer and length, touches no Python object and raises nothing.
ctypedef const unsigned char *octets


cdef inline bint is_blank(unsigned char octet) noexcept nogil:
    return octet == 0x20 or octet == 0x09


cdef inline unsigned char to_upper(unsigned char octet) noexcept nogil:
    """ASCII only."""
    return octet - 0x20 if 0x61 <= octet <= 0x7A else octet


cdef class PathScan:
    cdef readonly bytes mailbox
    cdef readonly bytes rest
    cdef Py_ssize_t _domain_size
    cdef Py_ssize_t _known_size
    cdef char _domain[256]
    cdef char _known[256]
    cdef str _known_domain

    cpdef bint read(self, bytes argument, bint is_recipient) except -1
    cpdef str domain(self)


cpdef bytes find_header(bytes head, bytes name)
