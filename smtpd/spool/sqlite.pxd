from smtpd.mail.queue_id cimport QueueIdMaker
from smtpd.spool.gathering cimport Gathering
from smtpd.spool.writer cimport SqliteWriter

cimport cython


cdef class SqliteSpool:
    cdef object _loop
    cdef object _files
    cdef object _settings
    cdef int _node
    cdef object _log
    cdef public Py_ssize_t _memory_budget_bytes
    cdef public Py_ssize_t memory_bytes
    cdef public Py_ssize_t spill_at_bytes
    cdef Py_ssize_t _spill_threshold
    cdef Gathering _gathering
    cdef list _shards
    cdef int _far_turn
    cdef bint _is_closed
    cdef bint _has_new_ids
    cdef readonly object _adoption_timer
    cdef readonly object _thread
    cdef readonly object _adopter
    cdef readonly object _active
    cdef readonly QueueIdMaker _ids
    cdef readonly object _space

    cpdef str next_queue_id(self)
    cpdef SqliteWriter begin(self, str queue_id, envelope)

    @cython.locals(data=bytes, chunks=list)
    cpdef commit(self, SqliteWriter writer, done, kept=*)
    cpdef object _insert(self, SqliteWriter writer, int is_spilled, kept)
    cpdef end_turn(self)
    cpdef hand_over(self)
    cpdef settle(self, item, list outcomes, double due_s, bint is_held, done, new=*, on_new=*)
    cpdef on_group(self, shard, batch, next_due_s, bint has_recovered)
    @cython.locals(writer=SqliteWriter, size=Py_ssize_t)
    cpdef _accept(self, shard, list writers)
