from smtpd.delivery.attempt cimport Attempt
from smtpd.delivery.destination cimport Destination, Share
from smtpd.delivery.lane cimport Lane
from smtpd.delivery.router cimport Route, Router
from smtpd.metrics._cells cimport Cells
from smtpd.spool.item cimport Body, SpoolItem

cimport cython


cdef class Scheduler:
    cdef public object _loop
    cdef public object _spool
    cdef public Router _router
    cdef public object log
    cdef public bint is_softening
    cdef public bint is_logging
    cdef public Py_ssize_t _concurrency
    cdef public Py_ssize_t _memory_bytes
    cdef public object _schedule
    cdef public object _reports
    cdef public Py_ssize_t _undecided_count
    cdef public list lanes
    cdef public object _runnable
    cdef public Py_ssize_t _waiting_count
    cdef public Py_ssize_t _claimed_count
    cdef public Py_ssize_t _body_bytes
    cdef public Py_ssize_t _in_flight
    cdef public double _claim_again_at
    cdef public double _look_far_at
    cdef public bint _is_starting
    cdef public bint _is_claiming
    cdef public object _census
    cdef public object wishes
    cdef public object _on_drained
    cdef public bint _is_draining
    cdef public object _timer

    cpdef start(self)
    cpdef drain(self, done)
    cpdef abandon(self)
    @cython.locals(attempt=Attempt, share=Share, destination=Destination, body=Body, size_bytes=Py_ssize_t, now_s=double)
    cpdef accepted(self, SpoolItem item)
    cpdef _maybe_claim(self, least=*)
    cpdef _maybe_drained(self)
    @cython.locals(lane=Lane, item=SpoolItem, recipients=list)
    cpdef _share_out(self, Attempt attempt, double now_s)
    @cython.locals(route=Route, lane=Lane)
    cpdef Destination _destination_of(self, envelope, str domain, double now_s)
    @cython.locals(in_flight=Py_ssize_t)
    cpdef bint _has_room(self, Destination destination) except -1
    cpdef bint _has_memory(self, Py_ssize_t size_bytes) except -1
    cpdef _wait(self, Share share, Destination destination, Py_ssize_t size_bytes)
    cpdef _charge(self, Share share, Py_ssize_t size_bytes)
    cpdef _discharge(self, Share share)
    @cython.locals(share=Share)
    cpdef _drop_body(self, Attempt attempt)
    cpdef _give_back(self, Attempt attempt, Destination destination)
    cpdef _take_claimed(self, SpoolItem item, double now_s)
    @cython.locals(destination=Destination, share=Share, now_s=double, left=int, blocked=Py_ssize_t)
    cpdef _start_waiting(self)
    cpdef bint _may_start(self, Destination destination, Share share) except -1
    cpdef _launch(self, Share share, double now_s, str refusal=*)
    cpdef fetch_body(self, Attempt attempt)
    @cython.locals(destination=Destination)
    cpdef share_done(self, Attempt attempt, Share share, bint is_last)
    @cython.locals(lane=Lane, item=SpoolItem)
    cpdef _finish(self, Attempt attempt)
    cpdef _grant_waiting(self)
    cpdef settled(self, Attempt attempt, str kept_as, error)
