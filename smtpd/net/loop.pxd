from smtpd cimport _io
cimport cython


cdef int _READ, _WRITE, _READ_MASK, _WRITE_MASK
cdef long _LEAST_CANCELLED
cdef double _READY_S


cdef class Timer:
    cdef Loop _loop
    cdef readonly double when
    cdef public object fn

    cpdef cancel(self)


cdef class Handler:
    cdef readonly object on_readable
    cdef readonly object on_writable


cdef class Loop:
    cdef object _epoll
    cdef _io.Poller _poller
    cdef list _handlers
    cdef list _timers
    cdef long _timer_count
    cdef public long cancelled_count
    cdef object _ready
    cdef object _posted
    cdef object _heavy
    cdef int _wake_fd
    cdef bint _is_waking
    cdef bint _is_running
    cdef tuple _signal_pair
    cdef list _turn_hooks
    cdef list _idle_hooks
    cdef public double now
    cdef public double turn_started_at

    cpdef Handler _find(self, int fd)
    @cython.locals(known=Handler)
    cpdef add_reader(self, int fd, on_readable)
    @cython.locals(known=Handler)
    cpdef add_writer(self, int fd, on_writable)
    @cython.locals(known=Handler)
    cpdef remove_reader(self, int fd)
    @cython.locals(known=Handler)
    cpdef remove_writer(self, int fd)
    cpdef forget(self, int fd)
    cpdef forget_closed(self, int fd)
    @cython.locals(known=Handler, handler=Handler, events=int, before=int)
    cpdef _register(self, int fd, on_readable, on_writable)
    @cython.locals(timer=Timer)
    cpdef Timer call_at(self, double when, fn)
    cdef _drop_cancelled(self)
    cpdef Timer call_later(self, double delay_s, fn)
    cpdef stop(self)

    @cython.locals(found=int, wait_s=double, until_timer_s=double, now=double)
    cpdef turn(self, max_wait_s=*)

    @cython.locals(poller=_io.Poller, i=int, fd=int, mask=int, handler=Handler)
    cpdef _handle_events(self)

    cpdef _on_wake(self)
    cdef _run_heavy(self)
    @cython.locals(timer=Timer)
    cpdef _run_timers(self)
