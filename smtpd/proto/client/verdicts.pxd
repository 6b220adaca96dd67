from smtpd._wire cimport ReplyReader


cpdef str text_of(ReplyReader reply)
cpdef bint is_too_many(ReplyReader reply) except -1
cpdef judge(ReplyReader reply, str relay, bint believes, bint passes_dsn=*)
