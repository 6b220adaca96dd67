# cython: auto_pickle=False, autotestdict=False
# An ordinary group of mails into SQLite with the GIL given up once; _group.pyi is the documented face.
#
# Nothing is linked: the functions are those of the very library that Python's sqlite3 has loaded, so the connection and the
# statements made here belong to one SQLite. SQLite hands the connection itself over, by its own sqlite3_auto_extension.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_Check
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

import _sqlite3
import sqlite3
import threading

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "dlfcn.h" nogil:
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)
    int RTLD_NOW

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_equal(pthread_t one, pthread_t other)

cdef extern from *:
    """
    typedef struct sqlite3 smtpd_db;
    typedef struct sqlite3_stmt smtpd_stmt;
    typedef int (*smtpd_on_open)(smtpd_db *, const char **, const void *);
    """
    ctypedef struct db_t "smtpd_db":
        pass
    ctypedef struct stmt_t "smtpd_stmt":
        pass
    ctypedef int (*on_open_t "smtpd_on_open")(db_t *, const char **, const void *) noexcept nogil

ctypedef int (*auto_t)(void *) noexcept nogil
ctypedef int (*prepare_t)(db_t *, const char *, int, unsigned int, stmt_t **, const char **) noexcept nogil
ctypedef int (*statement_t)(stmt_t *) noexcept nogil
ctypedef int (*bind_int_t)(stmt_t *, int, int64_t) noexcept nogil
ctypedef int (*bind_octets_t)(stmt_t *, int, const void *, int, void *) noexcept nogil
ctypedef int (*code_t)(db_t *) noexcept nogil
ctypedef const char *(*text_t)(db_t *) noexcept nogil

cdef enum:
    OK = 0
    DONE = 101
    PERSISTENT = 1  # SQLITE_PREPARE_PERSISTENT
    STATEMENTS = 5
    BEGIN = 0
    MAIL = 1
    BODY = 2
    GONE = 3
    COMMIT = 4

_SQL = (
    b"BEGIN IMMEDIATE",
    b"INSERT INTO mail (id, size, spilled, queue_id, envelope) VALUES (?, ?, ?, ?, ?)",
    b"INSERT INTO body (id, data) VALUES (?, ?)",
    b"DELETE FROM mail WHERE id = ?",
    b"COMMIT",
)

cdef struct Octets:
    const char *at
    int size

cdef struct MailRow:
    int64_t row
    int64_t size_bytes
    int64_t is_spilled
    Octets queue_id
    Octets envelope

cdef struct BodyRow:
    int64_t row
    Octets data

cdef auto_t auto_extension
cdef auto_t cancel_auto_extension
cdef prepare_t prepare
cdef statement_t step
cdef statement_t reset
cdef statement_t finalize
cdef bind_int_t bind_int64
cdef bind_octets_t bind_blob
cdef bind_octets_t bind_text
cdef code_t extended_code
cdef text_t error_text
cdef bint is_found = False

cdef bint is_opening = False
cdef pthread_t opener
cdef db_t *opened = NULL
_opening = threading.Lock()


cdef int on_open(db_t *db, const char **problem, const void *routines) noexcept nogil:
    global opened
    if is_opening and pthread_equal(opener, pthread_self()):
        opened = db
    return OK


cdef int find_functions() except -1:
    """Look the functions up in the library that `_sqlite3` uses; without one of them nothing of this is used."""
    global auto_extension, cancel_auto_extension, prepare, step, reset, finalize, bind_int64, bind_blob, bind_text
    global extended_code, error_text, is_found
    cdef void *library = NULL
    path = getattr(_sqlite3, "__file__", None)
    if path is None:
        library = dlopen(NULL, RTLD_NOW)
    else:
        encoded = path.encode()
        library = dlopen(encoded, RTLD_NOW)
    if library == NULL:
        return 0
    auto_extension = <auto_t>dlsym(library, "sqlite3_auto_extension")
    cancel_auto_extension = <auto_t>dlsym(library, "sqlite3_cancel_auto_extension")
    prepare = <prepare_t>dlsym(library, "sqlite3_prepare_v3")
    step = <statement_t>dlsym(library, "sqlite3_step")
    reset = <statement_t>dlsym(library, "sqlite3_reset")
    finalize = <statement_t>dlsym(library, "sqlite3_finalize")
    bind_int64 = <bind_int_t>dlsym(library, "sqlite3_bind_int64")
    bind_blob = <bind_octets_t>dlsym(library, "sqlite3_bind_blob")
    bind_text = <bind_octets_t>dlsym(library, "sqlite3_bind_text")
    extended_code = <code_t>dlsym(library, "sqlite3_extended_errcode")
    error_text = <text_t>dlsym(library, "sqlite3_errmsg")
    is_found = (
        auto_extension != NULL and cancel_auto_extension != NULL and prepare != NULL and step != NULL and reset != NULL
        and finalize != NULL and bind_int64 != NULL and bind_blob != NULL and bind_text != NULL and extended_code != NULL
        and error_text != NULL
    )
    return 0


find_functions()


def connect(path):
    global is_opening, opener, opened
    cdef GroupWriter writer
    if not is_found:
        return sqlite3.connect(path, timeout=0.0, isolation_level=None, cached_statements=1024), None
    with _opening:
        opened = NULL
        opener = pthread_self()
        is_opening = True
        auto_extension(<void *>on_open)
        try:
            connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, cached_statements=1024)
        finally:
            cancel_auto_extension(<void *>on_open)
            is_opening = False
        if opened == NULL:
            return connection, None
        writer = GroupWriter.__new__(GroupWriter)
        writer._db = opened
    return connection, writer


@cython.final
cdef class GroupWriter:
    cdef db_t *_db
    cdef stmt_t *_statements[STATEMENTS]

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        cdef int i
        for i in range(STATEMENTS):
            if self._statements[i] != NULL:
                finalize(self._statements[i])
                self._statements[i] = NULL
        self._db = NULL

    cdef int _prepare(self) except -1:
        cdef int i
        cdef const char *sql
        if self._db == NULL:
            raise sqlite3.ProgrammingError("the connection is closed")
        for i in range(STATEMENTS):
            if self._statements[i] == NULL:
                sql = _SQL[i]
                if prepare(self._db, sql, -1, PERSISTENT, &self._statements[i], NULL) != OK:
                    self._raise()
        return 0

    cdef int _raise(self) except -1:
        """The connection's last error, as Python's sqlite3 would tell it."""
        cdef int code = extended_code(self._db)
        error = sqlite3.OperationalError((<bytes>error_text(self._db)).decode("utf-8", "replace"))
        error.sqlite_errorcode = code
        names = [name for name, value in vars(sqlite3).items() if name.startswith("SQLITE_") and value == code]
        error.sqlite_errorname = names[0] if names else str(code)
        raise error

    def write(self, list mails, list bodies, list removed):
        cdef Py_ssize_t mail_count = len(mails) // 5
        cdef Py_ssize_t body_count = len(bodies) // 2
        cdef Py_ssize_t gone_count = len(removed)
        cdef Py_ssize_t i
        cdef MailRow *mail_rows = NULL
        cdef BodyRow *body_rows = NULL
        cdef int64_t *gone = NULL
        cdef bint is_done = False
        self._prepare()
        mail_rows = <MailRow *>malloc(mail_count * sizeof(MailRow) + body_count * sizeof(BodyRow) + gone_count * sizeof(int64_t) + 1)
        if mail_rows == NULL:
            raise MemoryError
        try:
            body_rows = <BodyRow *>(mail_rows + mail_count)
            gone = <int64_t *>(body_rows + body_count)
            for i in range(mail_count):
                mail_rows[i].row = mails[5 * i]
                mail_rows[i].size_bytes = mails[5 * i + 1]
                mail_rows[i].is_spilled = mails[5 * i + 2]
                mail_rows[i].queue_id = text_of(mails[5 * i + 3])
                mail_rows[i].envelope = octets_of(mails[5 * i + 4])
            for i in range(body_count):
                body_rows[i].row = bodies[2 * i]
                body_rows[i].data = octets_of(bodies[2 * i + 1])
            for i in range(gone_count):
                gone[i] = removed[i]
            with nogil:
                is_done = self._write_all(mail_rows, mail_count, body_rows, body_count, gone, gone_count)
            if not is_done:
                try:
                    self._raise()
                finally:
                    for i in range(STATEMENTS):
                        reset(self._statements[i])
        finally:
            free(mail_rows)

    cdef bint _write_all(
        self, MailRow *mails, Py_ssize_t mail_count, BodyRow *bodies, Py_ssize_t body_count, int64_t *gone, Py_ssize_t gone_count
    ) noexcept nogil:
        """One transaction; False at the first error, with everything left as it was at that moment."""
        cdef stmt_t *statement
        cdef Py_ssize_t i
        if not run(self._statements[BEGIN]):
            return False
        statement = self._statements[MAIL]
        for i in range(mail_count):
            bind_int64(statement, 1, mails[i].row)
            bind_int64(statement, 2, mails[i].size_bytes)
            bind_int64(statement, 3, mails[i].is_spilled)
            bind_text(statement, 4, mails[i].queue_id.at, mails[i].queue_id.size, NULL)
            bind_blob(statement, 5, mails[i].envelope.at, mails[i].envelope.size, NULL)
            if not run(statement):
                return False
        statement = self._statements[BODY]
        for i in range(body_count):
            bind_int64(statement, 1, bodies[i].row)
            bind_blob(statement, 2, bodies[i].data.at, bodies[i].data.size, NULL)
            if not run(statement):
                return False
        statement = self._statements[GONE]
        for i in range(gone_count):
            bind_int64(statement, 1, gone[i])
            if not run(statement):
                return False
        return run(self._statements[COMMIT])


cdef inline bint run(stmt_t *statement) noexcept nogil:
    """Step a statement that returns no row; one that failed is reset later, its error must be read first."""
    if step(statement) != DONE:
        return False
    reset(statement)
    return True


cdef Octets octets_of(octets) except *:
    """Borrowed from an object that the caller's list holds."""
    cdef Octets found
    if not PyBytes_Check(octets):
        raise TypeError(f"bytes expected, not {type(octets).__name__}")
    if PyBytes_GET_SIZE(octets) > 0x7FFFFFFF:
        raise OverflowError("more than SQLite takes")
    found.at = PyBytes_AS_STRING(octets)
    found.size = <int>PyBytes_GET_SIZE(octets)
    return found


cdef Octets text_of(str text) except *:
    cdef Octets found
    cdef Py_ssize_t size = 0
    found.at = PyUnicode_AsUTF8AndSize(text, &size)
    found.size = <int>size
    return found
