from smtpd._tally cimport Tally
from smtpd.mail.reply cimport Reply
from smtpd.proto.events cimport Event, Refusal, make_event
from smtpd.proto.rules cimport Rules
from smtpd.proto.transaction cimport Transaction


cdef int _GREETED, _CONNECTED, _CLOSED, _PAUSED_NOT, _CLOSE, _QUIT


cdef class Peer:
    cdef readonly str address
    cdef readonly int port
    cdef readonly str name
    cdef readonly bint is_balancer
    cdef public bint is_trusted
    cdef public Py_ssize_t row
    cdef public str session_id


cdef class Dialogue:
    cdef public Rules rules
    cdef public Peer peer
    cdef public int state
    cdef public int paused
    cdef public bytes helo
    cdef public bint is_extended
    cdef public bint is_tls
    cdef public bint is_draining
    cdef public Transaction transaction
    cdef public Tally tally
    cdef public bytes output
    cdef public list more_output
    cdef public list events
    cdef public int token
    cdef public object pending
    cdef public object conduct
    cdef public object step
    cdef public object policy
    cdef public int error_count
    cdef public int junk_count
    cdef public int mail_count

    cdef _begin(self, Rules rules, Peer peer)
    cpdef put(self, bytes wire)
    cpdef abort(self, Reply reply, str reason)
    cpdef answer(self, int verb, Reply reply)
    cpdef _count_error(self, Reply reply)
    cpdef _check_errors(self)
    cpdef bint count_junk(self) except -1
    cpdef close(self, str reason)
    cpdef violation(self, str kind)
    cpdef Reply reject(self, str stage, Reply reply, str reason, bytes recipient=*)
    cpdef drop_body(self)
    cpdef reset(self)
