from smtpd.spool.item cimport Body, SpoolItem


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

    cpdef bint take(self, list outcomes, list put_off) except -1
    cpdef fail(self, outcome)
    cpdef finish(self)
