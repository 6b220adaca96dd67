from smtpd.spool.item cimport Body, SpoolItem

cimport cython


cdef object _OPEN
cdef list _ONLY


cdef class Delivery:
    cdef public SpoolItem item
    cdef public Body body
    cdef public list recipients
    cdef public object done
    cdef public double started_at
    cdef public bytes head
    cdef public double sent_at
    cdef public double connect_s
    cdef public bint is_resent
    cdef public list left
    cdef public list outcomes

    cpdef begin(self, SpoolItem item, Body body, list recipients, done, double now)
    cpdef list find_left(self)
    cpdef bint take(self, list outcomes, list put_off) except -1
    cpdef fail(self, outcome)
    cpdef finish(self)


@cython.locals(delivery=Delivery)
cpdef Delivery begin_delivery(SpoolItem item, Body body, list recipients, done, double now)
