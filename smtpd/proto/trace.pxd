from smtpd._text cimport join_pieces

cimport cython


cdef bytes _HELO_TABLE

cpdef str protocol_name(bint is_lmtp, bint is_extended, bint is_smtputf8, bint is_tls)


cdef class DateText:
    cdef long long _second
    cdef bytes _text

    @cython.locals(second=cython.longlong)
    cpdef bytes at(self, double unix_s)


cpdef bytes safe_helo(bytes helo)
cpdef bytes _encode(str text)

@cython.locals(
    address=str, name=bytes, helo=bytes, opening=bytes, closing=bytes, before=bytes, path=bytes, behind=bytes, only=bytes,
    recipients=list,
)
cpdef bytes received_field(envelope, str queue_id, bytes hostname, bytes date, bytes tls=*)
