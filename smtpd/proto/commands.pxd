from smtpd._parser cimport CommandReader
from smtpd.mail.reply cimport Reply
from smtpd.mail.verdict cimport Verdict
from smtpd.proto.dialogue cimport Dialogue
from smtpd.proto.events cimport Event
from smtpd.proto.transaction cimport Transaction

cimport cython


cpdef Reply on_helo(Dialogue session, CommandReader reader)
cpdef Reply on_mail(Dialogue session, CommandReader reader)
cpdef Reply judge_mail(Dialogue session, Verdict verdict)

@cython.locals(transaction=Transaction)
cpdef Reply on_rcpt(Dialogue session, CommandReader reader)

cpdef Reply judge_rcpt(Dialogue session, Verdict verdict, recipient)
cpdef ask(Dialogue session, int paused, str stage, recipient=*)
