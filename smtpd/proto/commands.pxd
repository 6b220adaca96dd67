from smtpd._parser cimport CommandReader
from smtpd._scan cimport PathScan
from smtpd.mail.reply cimport Reply
from smtpd.mail.verdict cimport Verdict
from smtpd.proto.dialogue cimport Dialogue
from smtpd.proto.events cimport Event
from smtpd.proto.rules cimport Rules
from smtpd.proto.transaction cimport Transaction, begin_transaction

cimport cython


cdef PathScan _SCAN
cdef Reply _SENDER_OK, _RECIPIENT_OK
cdef Verdict _GO_ON
cdef int _MAIL, _RCPT, _HELO, _EHLO, _LHLO, _LINE_8BIT, _GREETED
cdef Py_ssize_t _HELO_LENGTH
cdef object _NO_PARAMETERS, _RECIPIENT

@cython.locals(verb=int, name=bytes, is_lmtp=bint)
cpdef Reply on_helo(Dialogue session, CommandReader reader)
cpdef Reply judge_helo(Dialogue session, Verdict verdict, int verb, bytes previous)
cpdef Reply greet_back(Dialogue session, int verb)

@cython.locals(rules=Rules, verdict=Verdict)
cpdef Reply on_mail(Dialogue session, CommandReader reader)
cpdef Reply judge_mail(Dialogue session, Verdict verdict)

@cython.locals(transaction=Transaction, rules=Rules, verdict=Verdict, path=bytes, domain=str, rest=bytes)
cpdef Reply on_rcpt(Dialogue session, CommandReader reader)

cpdef Reply judge_rcpt(Dialogue session, Verdict verdict, recipient)
cpdef ask(Dialogue session, int paused, str stage, recipient=*)
