from smtpd.mail.reply cimport Reply

cimport cython


cdef class Verdict:
    cdef readonly Reply reply
    cdef readonly str reason
    cdef readonly str queue_id
    cdef readonly list replies


@cython.locals(verdict=Verdict)
cpdef Verdict accept_as(str queue_id)
