from smtpd cimport _io
cimport cython


cdef class Timer:
    cdef readonly double when
    cdef public object fn

    cpdef cancel(self)


cdef class Loop:
    cdef object _epoll
    cdef int _epoll_fd
    cdef dict _handlers
    cdef list _timers
    cdef long _timer_count
    cdef object _ready
    cdef object _posted
    cdef int _wake_fd
    cdef bint _is_waking
    cdef bint _is_running
    cdef tuple _signal_pair
    cdef list _turn_hooks
    cdef public double now
    cdef public double turn_started_at

    cpdef add_reader(self, int fd, on_readable)
    cpdef add_writer(self, int fd, on_writable)
    cpdef remove_reader(self, int fd)
    cpdef remove_writer(self, int fd)
    cpdef forget(self, int fd)
    cpdef _register(self, int fd, on_readable, on_writable)
    cpdef Timer call_at(self, double when, fn)
    cpdef Timer call_later(self, double delay_s, fn)
    cpdef stop(self)

    @cython.locals(events=list, fd=int, mask=int, handler=tuple, until_timer_s=double)
    cpdef turn(self, max_wait_s=*)

    cpdef _on_wake(self)
    cpdef _run_timers(self)
