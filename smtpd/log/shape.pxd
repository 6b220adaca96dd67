cimport cython
from smtpd.log.escape cimport clean_bytes, clean_text, in_brackets
from smtpd.log.stamp cimport Stamp

cimport cython


cdef class PostfixShape:
    cdef Stamp _stamp

    cpdef str client(self, str queue_id, str client)
    cpdef str message_id(self, str queue_id, bytes message_id)
    cpdef str queued(self, str queue_id, bytes sender, Py_ssize_t size_bytes, Py_ssize_t recipient_count)
    @cython.locals(a=double, b=double, c=double, d=double)
    cpdef str delivered(
        self, str queue_id, bytes to, str relay, double delay_s, tuple delays, str dsn, str status, str text, str transport
    )
    cpdef str removed(self, str queue_id)


cdef Py_ssize_t _TEXT_LIMIT, _ADDRESS_LIMIT
cdef dict _PROGRAMS
cdef tuple _SECONDS

cpdef str _text(str text, Py_ssize_t limit=*)
cpdef str _octets(bytes data, Py_ssize_t limit)
@cython.locals(hundredths=int)
cpdef str seconds(double value)
