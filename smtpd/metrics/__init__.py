"""What is counted: every metric by name, the shared memory that holds them, and how a scrape reads it."""
