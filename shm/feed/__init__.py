"""The change feed: from NOTIFY to websocket frames."""
