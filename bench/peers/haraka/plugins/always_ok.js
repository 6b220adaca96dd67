// Accepts any recipient, which Haraka otherwise refuses.
'use strict';

exports.hook_rcpt = (next) => next(OK);
