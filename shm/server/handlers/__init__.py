"""What answers HTTP: one module for each audience. `base` holds what all handlers share."""
