"""Ground that every other package stands on: errors, settings, logging, metric keys, slugs, instruments."""
