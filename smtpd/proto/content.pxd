from smtpd._parser cimport BodyDecoder, CommandReader
from smtpd.mail.reply cimport Reply
from smtpd.mail.verdict cimport Verdict
from smtpd.proto.dialogue cimport Dialogue
from smtpd.proto.events cimport Event, make_event
from smtpd.proto.replies cimport queued
from smtpd.proto.trace cimport protocol_name
from smtpd.proto.transaction cimport Transaction, begin_transaction, check_content_limits, check_whole_content

cimport cython


cdef Reply _START_DATA
cdef int _CONTENT, _GREETED, _PAUSED_BODY, _BEGIN, _CHUNK, _END, _BDAT, _DATA_END

@cython.locals(transaction=Transaction)
cpdef Reply on_data(Dialogue session, CommandReader reader)
cpdef Reply start_data(Dialogue session, Transaction transaction)
cpdef judge_content(Dialogue session, Transaction transaction, Verdict verdict)

cpdef begin_content(Dialogue session, Transaction transaction)
cdef object _ENVELOPE

cpdef make_envelope(Dialogue session, Transaction transaction)

@cython.locals(transaction=Transaction, decoder=BodyDecoder, size_bytes=Py_ssize_t, limit=Py_ssize_t)
cpdef Reply begin_chunk(Dialogue session, bytes argument, Reply refusal)

cpdef Transaction make_swallower(Dialogue session, Transaction refused)

@cython.locals(transaction=Transaction, decoder=BodyDecoder, refusal=tuple)
cpdef Py_ssize_t take_content(Dialogue session, bytearray data, Py_ssize_t position, Py_ssize_t end) except -1

cpdef fail_content(Dialogue session, Transaction transaction, Reply reply, str reason)
cpdef end_chunk(Dialogue session, Transaction transaction)

@cython.locals(decoder=BodyDecoder, refusal=tuple)
cpdef end_content(Dialogue session, Transaction transaction)
cpdef settle_content(Dialogue session, Transaction transaction)

@cython.locals(transaction=Transaction, verb=int, refusal=Reply, reply=Reply, answers=list)
cpdef finish_body(Dialogue session, Verdict verdict)
