"""One worker process: connections, what they ask, what is counted of them, and how the worker begins and ends."""
