from smtpd._text cimport make_line
from smtpd.mail.reply cimport Reply, make_success


cdef bytes _QUEUED

cpdef Reply queued(str queue_id)
