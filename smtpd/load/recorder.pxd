from smtpd.load.histogram cimport Histogram

cimport cython


cdef Py_ssize_t _TRANSACTION, _MAIL_TOTAL


cdef class Recorder:
    cdef list _phases
    cdef Histogram _interval
    cdef long _interval_accepted
    cdef long _interval_failed
    cdef public long accepted
    cdef public long partial
    cdef public long failed
    cdef public long unsent
    cdef public long resent
    cdef public long recipients_accepted
    cdef public long recipients_failed
    cdef public long connections_opened
    cdef public long connections_failed
    cdef public long connections_ready
    cdef public long octets
    cdef public long starved
    cdef public double last_done_at
    cdef public dict errors
    cdef public dict examples
    cdef public list notes

    @cython.locals(histogram=Histogram)
    cpdef record(self, Py_ssize_t phase, double seconds)
    @cython.locals(interval=Histogram)
    cpdef note_mail(self, long accepted, long failed, long octets, double at, double transaction_s, double total_s)
