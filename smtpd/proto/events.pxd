from smtpd.mail.reply cimport Reply

cimport cython


cdef class Refusal:
    cdef readonly Reply reply
    cdef readonly str reason
    cdef readonly bytes recipient
    cdef readonly bytes sender
    cdef readonly Py_ssize_t recipient_count
    cdef readonly Py_ssize_t size_bytes


cdef class Event:
    cdef readonly int kind
    cdef readonly int token
    cdef readonly object data
    cdef readonly str stage


@cython.locals(event=Event)
cpdef Event make_event(int kind, data, int token)
