"""HTTP handlers: one module for each audience. `base` has the code that all handlers share."""
