// nodemailer's smtp-server as a peer of the comparison: takes every mail and discards it. `node server.js HOST PORT`
'use strict';

const { SMTPServer } = require('smtp-server');

const server = new SMTPServer({
    name: 'bench.example.net',
    authOptional: true,
    disabledCommands: ['AUTH', 'STARTTLS'],
    disableReverseLookup: true,
    maxClients: Infinity,
    onData(stream, session, callback) {
        stream.on('end', callback);
        stream.resume();
    },
});

server.on('error', (error) => console.error(error.message)); // a client that went away
server.listen({ host: process.argv[2], port: Number(process.argv[3]), backlog: 4096 });
process.on('SIGTERM', () => process.exit(0));
