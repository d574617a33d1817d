"""What the benches share: servers, signed fleets, measures of the machine, and the report's format."""
