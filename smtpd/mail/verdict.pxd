from smtpd.mail.reply cimport Reply


cdef class Verdict:
    cdef readonly Reply reply
    cdef readonly str reason
    cdef readonly str queue_id
    cdef readonly list replies
