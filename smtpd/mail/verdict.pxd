from smtpd.mail.reply cimport Reply

cimport cython

cdef tuple _NO_CHANGES


cdef class Verdict:
    cdef readonly Reply reply
    cdef readonly str reason
    cdef readonly str queue_id
    cdef readonly list replies
    cdef readonly tuple changes
    cdef readonly int ending
    cdef readonly str note


@cython.locals(verdict=Verdict)
cpdef Verdict accept_as(str queue_id)
