from smtpd cimport _io
from smtpd.mail.verdict cimport Verdict
from smtpd.policy.pipeline cimport Entry, Plan
from smtpd.policy.question cimport Client, Question
from smtpd.proto.dialogue cimport Dialogue
from smtpd.proto.transaction cimport Transaction

cimport cython


cdef Verdict _GO_ON
cdef int _IN_MAIL


cdef class Asked:
    cdef readonly Entry entry
    cdef public str failure
    cdef public int result
    cdef readonly long run
    cdef public object side
    cdef readonly double started_at
    cdef public object timer
    cdef public Verdict verdict


cdef class Inspection:
    cdef readonly list changes
    cdef readonly Client client
    cdef readonly object content
    cdef public object driver
    cdef readonly bint is_exempt
    cdef readonly bint is_over
    cdef readonly dict memories
    cdef readonly Plan plan
    cdef readonly object policy_class
    cdef readonly str queue_id
    cdef readonly object recipient
    cdef readonly bytes reverse_path
    cdef readonly str stage
    cdef list _asked
    cdef list _entries
    cdef list _found
    cdef bint _is_mail_exempt
    cdef list _kept
    cdef object _loop
    cdef object _observer
    cdef object _parameters
    cdef Py_ssize_t _position
    cdef tuple _recipients
    cdef long _run
    cdef bint _sees_all
    cdef object _side
    cdef long _token
    cdef Verdict _verdict

    @cython.locals(number=int, is_exempt=bint)
    cpdef Verdict judge(self, Dialogue session, str stage, recipient=*)
    cpdef end_transaction(self)
    cpdef end(self)
    @cython.locals(client=Client)
    cpdef _note_session(self, Dialogue session)
    @cython.locals(transaction=Transaction)
    cpdef _begin_transaction(self, Dialogue session)
    cpdef _begin_stage(self, str stage, Dialogue session, list entries)
    @cython.locals(entry=Entry, verdict=Verdict)
    cpdef Verdict _advance(self)
    cpdef bint _is_on(self, Entry entry) except -1
    cpdef Verdict _ask_at_once(self, Entry entry)
    cpdef Verdict _weigh(self, Entry entry, Verdict verdict, int result, double started_at, str failure=*)
    cpdef Verdict _end_stage(self, Verdict verdict)
    cpdef _finish(self, Verdict verdict)
    cpdef _cancel(self)
