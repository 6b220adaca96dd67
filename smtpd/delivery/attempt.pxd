from smtpd.delivery.destination cimport Destination, Share
from smtpd.delivery.lane cimport Lane
from smtpd.delivery.scheduler cimport Scheduler
from smtpd.spool.item cimport Body, SpoolItem

cimport cython


cdef class Attempt:
    cdef public Scheduler _scheduler
    cdef public SpoolItem item
    cdef public list shares
    cdef public list lanes
    cdef public double activated_at_s
    cdef public bint is_claimed
    cdef public bint is_postponed
    cdef public bint is_success_told
    cdef public list outcomes
    cdef public Py_ssize_t _left
    cdef public list _for_body

    @cython.locals(share=Share, destination=Destination)
    cpdef set_shares(self, list shares)
    cpdef start(self, Share share, double now_s, str refusal=*)
    cpdef _defer(self, Share share, str dsn, str text)
    cpdef take(self, Share share, list outcomes, double connect_s)
    cpdef _log(self, Lane lane, Share share, list outcomes, double now_s, double connect_s)
