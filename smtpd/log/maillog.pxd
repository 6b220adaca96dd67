cimport cython


cdef class MailLog:
    cdef object _settings
    cdef object _shape
    cdef object _on_dropped
    cdef str _syslog_path
    cdef list _lines
    cdef object _queue
    cdef Py_ssize_t _put_lines
    cdef Py_ssize_t _put_characters
    cdef Py_ssize_t _taken_lines
    cdef Py_ssize_t _taken_characters
    cdef Py_ssize_t _overflowed
    cdef Py_ssize_t _lost
    cdef str _complaint
    cdef Py_ssize_t _counted
    cdef Py_ssize_t _announced
    cdef object _is_closing
    cdef double _give_up_at_s
    cdef readonly object _thread
    cdef bint _is_terse

    @cython.locals(lines=list, line=str, characters=Py_ssize_t, count=Py_ssize_t)
    cpdef end_turn(self)

    cpdef client(self, str queue_id, str client)
    cpdef message_id(self, str queue_id, bytes message_id)
    cpdef queued(self, str queue_id, bytes sender, Py_ssize_t size_bytes, Py_ssize_t recipient_count)
    cpdef delivered(
        self, str queue_id, bytes to, str relay, double delay_s, tuple delays, str dsn, str status, str text, str transport
    )
    cpdef removed(self, str queue_id)
    cpdef bint _has_room(self, Py_ssize_t lines, Py_ssize_t characters) except -1
