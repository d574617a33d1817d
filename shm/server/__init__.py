"""The HTTP server: routes, handlers, background jobs, worker processes."""
