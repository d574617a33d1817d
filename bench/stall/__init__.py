"""The waits of honest installs while strangers do what costs the server most."""
