from smtpd._text cimport join_pieces
from smtpd.proto.client.extensions cimport Extensions
from smtpd.proto.client.transmission cimport Transmission

cimport cython


cdef int _SIZE, _DSN


@cython.locals(
    flags=Py_ssize_t, place=Py_ssize_t, index=Py_ssize_t, octets=bytes, path=bytes, is_international=bint, is_ascii_wanted=bint,
    has_decided=bint, commands=list, asked=list, recipients=list,
)
cpdef bytes prepare(Transmission transmission, Extensions extensions, str relay)

@cython.locals(command=bytes, size=bytes)
cpdef bytes _render_mail(Transmission transmission, bytes reverse_path, Py_ssize_t flags, bint is_international)

@cython.locals(command=bytes, size=bytes)
cpdef bytes _render_rcpt(recipient, bytes path, Py_ssize_t flags)
