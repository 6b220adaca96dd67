/* The floor: an SMTP server that answers without looking, to show what system calls and loopback TCP cost by themselves.
 *
 * One process, one epoll set, fixed replies by the first letter of a command line. Content is not scanned: only the last five
 * octets of what has arrived are compared with CRLF.CRLF, so the generator must not pipeline behind the end of a mail
 * (smtp-source never does). No limits, no timers, nothing is kept. Never use it for mail.
 *
 * usage: floor ADDRESS PORT      prints "ready" when it listens; ends by TERM or when its parent does
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 1 << 20, MAX_EVENTS = 256, BUFFER = 1 << 17, REPLIES = 1 << 12 };

struct connection {
    char tail[5]; /* the last octets of the content so far */
    char verb;    /* first letter of the command line under way, 0 at its start */
    char is_data;
};

static struct connection connections[MAX_FDS];
static char buffer[BUFFER];
static char replies[REPLIES];

static const char GREETING[] = "220 floor ESMTP\r\n";
static const char EHLO[] = "250-floor\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250 8BITMIME\r\n";
static const char OK[] = "250 2.0.0 Ok\r\n";
static const char GO_AHEAD[] = "354 End data with <CR><LF>.<CR><LF>\r\n";
static const char BYE[] = "221 2.0.0 Bye\r\n";
static const char UNKNOWN[] = "500 5.5.2 Unknown\r\n";

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Append the reply to a command line that began with `verb`. */
static size_t answer(struct connection *conn, char verb, size_t used, int *is_over)
{
    const char *reply = UNKNOWN;
    switch (verb | 0x20) {
    case 'e':
    case 'h':
        reply = EHLO;
        break;
    case 'm':
    case 'r':
    case 'n':
        reply = OK;
        break;
    case 'd':
        reply = GO_AHEAD;
        conn->is_data = 1;
        memcpy(conn->tail, "\0\0\0\r\n", 5); /* the CRLF before an empty content's dot is DATA's own */
        break;
    case 'q':
        reply = BYE;
        *is_over = 1;
        break;
    }
    size_t length = strlen(reply);
    if (used + length > REPLIES) { /* a flood that no generator sends: forget it */
        *is_over = 1;
        return used;
    }
    memcpy(replies + used, reply, length);
    return used + length;
}

/* Take what one recv brought; return how many octets of `replies` are to be sent. */
static size_t take(struct connection *conn, const char *data, size_t size, int *is_over)
{
    size_t used = 0;
    while (size && !*is_over) {
        if (conn->is_data) {
            if (size >= 5) {
                memcpy(conn->tail, data + size - 5, 5);
            } else {
                memmove(conn->tail, conn->tail + size, 5 - size);
                memcpy(conn->tail + 5 - size, data, size);
            }
            if (!memcmp(conn->tail, "\r\n.\r\n", 5)) {
                conn->is_data = 0;
                used = answer(conn, 'n', used, is_over);
            }
            return used;
        }
        if (!conn->verb)
            conn->verb = *data;
        const char *end = memchr(data, '\n', size);
        if (!end)
            return used;
        used = answer(conn, conn->verb, used, is_over);
        conn->verb = 0;
        size -= end + 1 - data;
        data = end + 1;
    }
    return used;
}

static int listen_on(const char *address, const char *port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, address, &name.sin_addr) != 1)
        die("address");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&name, sizeof name) || listen(fd, 4096))
        die("bind");
    return fd;
}

static void accept_all(int listener, int epoll)
{
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= MAX_FDS || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) {
            close(fd);
            continue;
        }
        memset(&connections[fd], 0, sizeof connections[fd]);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (send(fd, GREETING, sizeof GREETING - 1, MSG_NOSIGNAL) < 0)
            close(fd);
    }
}

static void serve(int fd)
{
    int is_over = 0;
    ssize_t size = recv(fd, buffer, sizeof buffer, 0);
    if (size > 0) {
        size_t used = take(&connections[fd], buffer, size, &is_over);
        if (used && send(fd, replies, used, MSG_NOSIGNAL) != (ssize_t)used)
            is_over = 1;
    } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
        is_over = 1;
    }
    if (is_over)
        close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: floor ADDRESS PORT\n");
        return 64;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int listener = listen_on(argv[1], argv[2]), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[MAX_EVENTS];
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, MAX_EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener, epoll);
            else
                serve(events[i].data.fd);
        }
    }
}
