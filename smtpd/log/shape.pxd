from smtpd.log.escape cimport clean_bytes, clean_text, in_brackets


cdef Py_ssize_t _TEXT_LIMIT, _ADDRESS_LIMIT
cdef dict _PROGRAMS

cpdef str _text(str text, Py_ssize_t limit=*)
cpdef str _octets(bytes data, Py_ssize_t limit)
cpdef str seconds(double value)
