"""HTTP below the handlers: dispatch, streams, limits, parameters, problem documents."""
