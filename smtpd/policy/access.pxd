from smtpd.mail.verdict cimport Verdict

cimport cython


@cython.locals(mailbox=str)
cpdef Verdict _find_mailbox(dict table, bytes path, str domain)

@cython.locals(rest=str)
cpdef Verdict _find_domain(dict table, str domain)
