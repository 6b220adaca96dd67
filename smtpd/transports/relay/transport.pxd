from smtpd.net.loop cimport Loop
from smtpd.proto.client.rules cimport ClientRules
from smtpd.spool.item cimport Body, SpoolItem
from smtpd.transports.relay.delivery cimport Delivery, begin_delivery
from smtpd.transports.relay.pool cimport Pool

cimport cython


cdef class RelayTransport:
    cdef public str name
    cdef public str route_name
    cdef public bint is_per_domain
    cdef public Loop loop
    cdef public object files
    cdef public object warn
    cdef public object transcript_for
    cdef public object _host
    cdef public object _route
    cdef public bint is_tls_optional
    cdef public bint is_spread
    cdef public object tls_name
    cdef public object source_address
    cdef public Py_ssize_t most_connections
    cdef public Py_ssize_t most_mails
    cdef public double age_s
    cdef public double idle_s
    cdef public double retry_s
    cdef public dict timeouts
    cdef public ClientRules rules
    cdef public ClientRules plain_rules
    cdef public Py_ssize_t unconfirmed
    cdef public Py_ssize_t unannounced_8bit
    cdef public dict _pools
    cdef public dict _healths
    cdef public object _context
    cdef public object _timer
    cdef public bint _is_closed
    cdef public double _sweep_s

    @cython.locals(pool=Pool, delivery=Delivery)
    cpdef deliver(self, SpoolItem item, Body body, list recipients, done, str key=*)
    @cython.locals(pool=Pool)
    cpdef Py_ssize_t window(self, str key) except -1
