"""rspamd over HTTP: the verdict of its scan of a whole mail."""
