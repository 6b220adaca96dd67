from smtpd.delivery.destination cimport Destination, Share
from smtpd.delivery.lane cimport Lane
from smtpd.delivery.scheduler cimport Scheduler
from smtpd.spool.item cimport Body, SpoolItem

cimport cython


cdef int _DELIVERED, _DEFERRED
cdef tuple _STATUS_NAMES


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

    @cython.locals(share=Share)
    cpdef Share new_share(self, Destination destination, list indexes)
    cpdef begin(self, Scheduler scheduler, SpoolItem item, double now_s, bint is_claimed)
    @cython.locals(share=Share, destination=Destination, lanes=list)
    cpdef set_shares(self, list shares)
    @cython.locals(destination=Destination, body=Body)
    cpdef start(self, Share share, double now_s, str refusal=*)
    cpdef _defer(self, Share share, str dsn, str text)
    @cython.locals(now_s=double, started_at_s=double, scheduler=Scheduler, destination=Destination, lane=Lane)
    cpdef take(self, Share share, list outcomes, double connect_s)
    @cython.locals(
        queue_id=str, recipients=list, received_at_s=double, delay_s=double, transport=str, place=Py_ssize_t,
        status=int, code=int, dsn=str, relay=str, text=str,
    )
    cpdef _log(self, Lane lane, Share share, list outcomes, double now_s, double connect_s)
