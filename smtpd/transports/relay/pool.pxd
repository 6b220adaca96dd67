from smtpd.net.loop cimport Loop
from smtpd.proto.client.rules cimport ClientRules
from smtpd.proto.client.session cimport ClientSession
from smtpd.proto.client.transmission cimport Transmission
from smtpd.transports.relay.delivery cimport Delivery
from smtpd.transports.relay.health cimport HopHealth
from smtpd.transports.relay.link cimport Link
from smtpd.transports.relay.transport cimport RelayTransport

cimport cython


cdef class Pool:
    cdef public RelayTransport _transport
    cdef public str _key
    cdef public Loop loop
    cdef public object files
    cdef public ClientRules rules
    cdef public ClientRules plain_rules
    cdef public dict timeouts
    cdef public object source_address
    cdef public object tls_name
    cdef public double idle_s
    cdef public object transcript_for
    cdef public set links
    cdef public list _idle
    cdef public object _pending
    cdef public list _healths
    cdef public object _search
    cdef public double _known_until
    cdef public Py_ssize_t _turn
    cdef public double _window
    cdef public double _mail_s
    cdef public Py_ssize_t _under_way
    cdef public Py_ssize_t busy_links
    cdef public Py_ssize_t _stalled_links
    cdef public bint _is_waiting_for_host
    cdef public object _full_host_pause_s
    cdef public double _no_more_until
    cdef public dict _failures
    cdef public bint _is_stuck
    cdef public bint _is_closed

    cpdef tls_context(self)
    cpdef Py_ssize_t window(self) except? -1
    cpdef start(self, Delivery delivery)
    @cython.locals(link=Link, stalled=Py_ssize_t)
    cpdef sweep(self, double now)
    @cython.locals(link=Link)
    cpdef close(self)
    @cython.locals(link=Link, now=double, opening=Py_ssize_t, active=Py_ssize_t)
    cpdef _serve(self, bint is_late=*)
    @cython.locals(prompt_links=Py_ssize_t)
    cpdef bint _may_follow(self) except -1
    cpdef fill(self, Link link)
    cpdef Link _open(self, double now)
    @cython.locals(link=Link)
    cpdef _fill_pipelines(self)
    cpdef _fail_pending(self, outcome)
    @cython.locals(transport=RelayTransport, is_broken=bint, is_finished=bint, put_off=list)
    cpdef on_done(self, Link link, Delivery delivery, Transmission transmission)
    cpdef on_ready(self, Link link)
    cpdef on_closed(self, Link link, reason)
    cpdef bint _may_resend(self, Link link, Delivery delivery, Transmission transmission) except -1
    cpdef _drop_idle(self, HopHealth health)
    cpdef _note_success(self, Link link)
    cpdef _note_failure(self, Link link, reason)
    @cython.locals(is_young=bint, transport=RelayTransport)
    cpdef bint _is_fresh(self, Link link) except -1
    @cython.locals(now=double)
    cpdef bint _gives_way(self, Link link) except -1
    @cython.locals(session=ClientSession, gives_way=bint, is_good=bint)
    cpdef _give_work(self, Link link)
