from smtpd cimport _io
from smtpd.net.loop cimport Loop, Timer
from smtpd.net.tls.engine cimport TlsEngine

cimport cython


cdef bytearray _BUFFER
cdef Py_ssize_t _READ_BYTES, _TLS_READ_BYTES, _EAGAIN


cdef class StreamOwner:
    cpdef Py_ssize_t on_data(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef on_end(self)
    cpdef on_lost(self)
    cpdef on_drained(self)
    cpdef on_closed(self)


cdef class Stream:
    cdef Loop _loop
    cdef readonly int fd
    cdef public StreamOwner owner
    cdef readonly bint is_paused
    cdef readonly bint at_end
    cdef bint _has_reader
    cdef bint _is_queued
    cdef bytearray _rest
    cdef bytes _output
    cdef Timer _linger
    cdef Py_ssize_t _linger_bytes
    cdef readonly TlsEngine tls

    cdef _begin(self, Loop loop, int fd, StreamOwner owner)
    cpdef start(self)
    cpdef pause(self)
    cpdef resume(self)
    @cython.locals(sent=Py_ssize_t)
    cpdef bint write(self, bytes data) except -1
    @cython.locals(sent=Py_ssize_t)
    cpdef finish(self, bytes data)
    cpdef close(self, bint linger=*)
    cpdef reset(self)
    @cython.locals(owner=StreamOwner)
    cpdef destroy(self)

    @cython.locals(count=Py_ssize_t, taken=Py_ssize_t, owner=StreamOwner)
    cpdef _on_readable(self)

    @cython.locals(taken=Py_ssize_t, owner=StreamOwner, rest=bytearray)
    cpdef _pump(self)

    @cython.locals(owner=StreamOwner)
    cpdef _lose(self)

    @cython.locals(owner=StreamOwner, sent=Py_ssize_t)
    cpdef _on_writable(self)

    @cython.locals(owner=StreamOwner)
    cpdef _tell_end(self)
    cpdef _keep(self, bytearray rest)
    cpdef _watch(self)
    cpdef _unwatch(self)

    @cython.locals(tls=TlsEngine)
    cpdef bytes _encrypt(self, bytes data)
    @cython.locals(count=Py_ssize_t, tls=TlsEngine)
    cpdef _on_tls_readable(self)
    @cython.locals(count=Py_ssize_t, taken=Py_ssize_t, owner=StreamOwner, tls=TlsEngine)
    cpdef _step_tls(self)
    @cython.locals(tls=TlsEngine)
    cpdef _shake(self)
    @cython.locals(tls=TlsEngine)
    cpdef _end_handshake(self, str failure)


@cython.locals(stream=Stream)
cpdef Stream make_stream(Loop loop, int fd, StreamOwner owner)
