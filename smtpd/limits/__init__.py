"""What one client may take of the whole host: connections and rates, counted in memory that all workers share."""
