from smtpd._parser cimport CommandReader
from smtpd.mail.reply cimport Reply
from smtpd.mail.verdict cimport Verdict
from smtpd.proto.commands cimport judge_helo, judge_mail, judge_rcpt, on_mail, on_rcpt
from smtpd.proto.content cimport begin_chunk, finish_body, judge_content, on_data, settle_content, start_data, take_content
from smtpd.proto.dialogue cimport Dialogue, Peer
from smtpd.proto.rules cimport Rules

cimport cython


cdef long _IS_JUNK
cdef int _CHECKED_FLAGS, _BDAT, _MAIL, _RCPT, _DATA, _VERB_COUNT, _CONTENT, _CLOSED
cdef int _RCPT_STATE, _COMMANDS_PER_TURN, _PAUSED_NOT, _PAUSED_BODY, _PAUSED_DELAY, _PAUSED_STEP


cdef class Session(Dialogue):
    cdef CommandReader _reader

    cpdef start(self)
    cpdef restart(self, Rules rules, Peer peer, policy)
    cpdef _ask_at_connect(self)
    cpdef _resume_policy(self, str stage, int verb, bytes previous_helo, Verdict verdict)

    @cython.locals(reader=CommandReader, position=Py_ssize_t, budget=int)
    cpdef Py_ssize_t receive(self, bytearray data, Py_ssize_t start, Py_ssize_t end) except -1

    @cython.locals(octets=bytes)
    cpdef bytes take_output(self)

    @cython.locals(what=int)
    cpdef resume(self, int token, Verdict verdict=*)
    cpdef drain(self)
    cpdef bint is_waiting_for_line(self)

    @cython.locals(verb=int, refusal=Reply)
    cpdef _handle_command(self, CommandReader reader, bint has_more)

    cdef _run_command(self, int verb, CommandReader reader)
    cpdef _greet(self)
    cpdef _conduct_command(self, int verb, CommandReader reader)
    cpdef _follow_step(self, int verb, CommandReader reader)
    cpdef _resume_step(self, int what, place, Verdict verdict)

    cpdef Reply _check_octets(self, int flags)


@cython.locals(session=Session)
cpdef Session make_session(Rules rules, Peer peer)
