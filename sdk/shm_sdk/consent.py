"""The end user's consent: asks for it, where the host's mode requires that, and applies the answer.

opt-out   reports unless the user refuses (the default)
notice    the same, after a notice was shown once; the first report follows after the next interval
opt-in    reports nothing before the user agrees; metrics that are new since then are left out until asked again
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from shm_sdk import forking
from shm_sdk.choice import Choice, choice_path, read_choice, timestamp, write_choice
from shm_sdk.configuration import Configuration, default_data_dir
from shm_sdk.diagnostics import Notices, warn_once
from shm_sdk.digests import hash_hex
from shm_sdk.names import telemetry_variable
from shm_sdk.outcome import Outcome, Result
from shm_sdk.snapshot import EPHEMERAL_KEY, Json
from shm_sdk.threads import host_signals

NOTICE = "notice"
OPT_IN = "opt-in"
HASH_DIGITS = 16  # 64 bits: no two of some thousands of names have the same


class ConsentRequest(NamedTuple):
    """The question to the user. `new_names` are the metrics that no earlier consent covers."""

    app_name: str
    server_url: str
    metrics: Mapping[str, Json]  # as they would be sent now
    new_names: tuple[str, ...]
    is_first: bool  # False: the user agreed before, and more is collected now
    options: str = ""  # of `python -m shm_sdk`, for this application

    @property
    def text(self) -> str:
        """A text to show."""
        names = ", ".join(self.new_names)
        variable = telemetry_variable(self.app_name)
        what = f"{self.app_name} reports usage figures to {self.server_url}: {names}."
        if not self.is_first:
            what = f"{self.app_name} has new usage figures for {self.server_url}: {names}."
        return f"{what}\nTo refuse: python -m shm_sdk off {self.options}, or {variable}=off."


ConsentCallback = Callable[[ConsentRequest], bool | None]


class Consent:
    """The user's consent for one application, in one process."""

    def __init__(self, configuration: Configuration, callback: ConsentCallback | None, notices: Notices) -> None:
        self._configuration = configuration
        self._callback = callback
        self._notices = notices
        self._choice = Choice()
        self._asked: tuple[str, ...] | None = None  # the same question is put once in a process

    def is_erased(self, instance_id: str) -> bool:
        """Whether the user has erased this install."""
        return instance_id in self._choice.erased_ids

    def refusal(self) -> Outcome | None:
        """Reads the stored choice. The outcome of a report that must not be made, None otherwise."""
        self._choice = read_choice(self._configuration)
        if self._choice.error:
            warn_once(f"choice {self._choice.error}", "telemetry is off: %s", self._choice.error)
            return Outcome(Result.OFF, self._choice.error)
        return Outcome(Result.OFF, "the user has turned telemetry off") if self._choice.is_off else None

    def select_agreed(self, metrics: dict[str, Json]) -> dict[str, Json]:
        """The metrics that the stored agreement covers, all of them without one. Asks nobody."""
        choice = read_choice(self._configuration)
        if self._configuration.consent != OPT_IN or not choice.is_on or choice.metric_hashes is None:
            return metrics
        return select(metrics, frozenset(choice.metric_hashes))

    def check(self, metrics: dict[str, Json]) -> dict[str, Json] | Outcome:
        """The metrics that may be sent, or the outcome of a report that must not be sent. Asks if necessary."""
        if self._configuration.consent == NOTICE:
            return self._show_notice(metrics) or metrics
        if self._configuration.consent != OPT_IN:
            return metrics
        hashes = {hash_name(name): name for name in metric_names(metrics)}
        if self._choice.is_on and self._choice.metric_hashes is None:
            self._store(self._choice.decided("on", hashes))
        if not self._choice.is_on:
            answer = self._ask(metrics, tuple(sorted(hashes.values())))
            if answer is None:
                return Outcome(Result.PENDING, "the user has not agreed yet")
            self._store(self._choice.decided("on" if answer else "off", hashes))
            return metrics if answer else Outcome(Result.OFF, "the user has refused")
        allowed = self._choice.metric_hashes or ()
        added = hashes.keys() - {*allowed, *self._choice.declined_hashes}
        if added:
            answer = self._ask(metrics, tuple(sorted(hashes[each] for each in added)))
            if answer:
                allowed = (*allowed, *added)
                self._store(self._choice.decided("on", allowed))
            elif answer is not None:
                declined = tuple(sorted({*self._choice.declined_hashes, *added}))
                self._store(self._choice._replace(declined_hashes=declined))
        return select(metrics, frozenset(allowed))

    def _show_notice(self, metrics: Mapping[str, Json]) -> Outcome | None:
        if self._choice.notice_shown_at or self._choice.is_on:
            return None
        names = tuple(sorted(metric_names(metrics)))
        if self._asked is not None:
            return None  # it was shown in this process, and could not be stored
        if self._callback is None:
            self._asked = names
            sys.stderr.write(f"{self._request(metrics, names).text}\n")
        elif self._ask(metrics, names) is False:
            self._store(self._choice.decided("off"))
            return Outcome(Result.OFF, "the user has refused")
        self._store(self._choice._replace(notice_shown_at=timestamp()))
        return Outcome(Result.PENDING, "the notice has been shown; reports follow")

    def _ask(self, metrics: Mapping[str, Json], new_names: tuple[str, ...]) -> bool | None:
        """The user's answer, None without one."""
        if self._callback is None or new_names == self._asked:
            return None
        self._asked = new_names
        try:
            with host_signals():
                return self._callback(self._request(metrics, new_names))
        except Exception as error:
            self._notices.warn("consent_callback", "the consent callback failed: %s", type(error).__name__)
            return None

    def _request(self, metrics: Mapping[str, Json], new_names: tuple[str, ...]) -> ConsentRequest:
        settings = self._configuration
        is_first = not self._choice.is_on
        options = command_options(settings)
        return ConsentRequest(settings.app_name, settings.server_url, metrics, new_names, is_first, options)

    def _store(self, choice: Choice) -> None:
        self._choice = choice
        try:
            write_choice(self._configuration, choice)
        except OSError as error:
            path = choice_path(self._configuration)
            warn_once(f"choice {path}", "the user's choice cannot be stored: %s", error.strerror)


def command_options(configuration: Configuration) -> str:
    """The options with which `python -m shm_sdk` finds this application's files."""
    with forking.import_lock:
        import shlex

    options = ["--app-name", configuration.app_name]
    if configuration.data_dir != default_data_dir(configuration.app_name, os.environ):
        options += ["--data-dir", str(configuration.data_dir)]
    return shlex.join(options)


def metric_names(metrics: Mapping[str, Json], prefix: str = "") -> Iterator[str]:
    """The full dotted name of each metric."""
    for name, value in metrics.items():
        if isinstance(value, dict) and value:
            yield from metric_names(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != EPHEMERAL_KEY:  # says nothing about the user
            yield f"{prefix}{name}"


def hash_name(name: str) -> str:
    """What is stored of a metric's name.

    One hash for each name, and not one for all: it shows which metrics are new, and that one is no longer collected
    needs no new question.
    """
    return hash_hex(name.encode(errors="surrogatepass"))[:HASH_DIGITS]


def select(metrics: Mapping[str, Json], allowed: frozenset[str], prefix: str = "") -> dict[str, Json]:
    """The metrics whose names have an allowed hash."""
    kept: dict[str, Json] = {}
    for name, value in metrics.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            if members := select(value, allowed, f"{path}."):
                kept[name] = members
        elif path == EPHEMERAL_KEY or hash_name(path) in allowed:
            kept[name] = value
    return kept
