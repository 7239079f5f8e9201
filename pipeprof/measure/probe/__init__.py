"""Code that runs inside workers and inside `next()`: proxies, spans, the ring, counters."""
