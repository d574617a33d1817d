"""Calls after a delay that are never lost."""

import asyncio
from collections.abc import Callable

from textual.message_pump import MessagePump


def call_after(target: MessagePump, delay_s: float, callback: Callable[[], object]) -> None:
    """Calls `callback` as a message of `target` after a delay, or not at all if `target` is closed by then.

    A timer of Textual's ends without a call if the process stalls for its whole delay when it starts. A short delay
    needs only a busy machine.
    """
    asyncio.get_running_loop().call_later(delay_s, target.call_later, callback)
