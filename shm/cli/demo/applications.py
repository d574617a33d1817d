"""Three invented applications, their releases and installs, and the metrics that an install reports. Pure.

Versions and counters are functions of the time, of the install's number and of the moment at which the demo was first
started, so a fleet needs no other state: after a restart, its counters have the values that they would have without it.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

DAY_S = 86_400.0
OLDEST_INSTALL_DAYS = 500  # before the first start of the demo
ADOPTION_DAYS = 25  # after a release, until half of the installs have it
FORMER_SHARE = 8  # one install has ended for each so many that report
TIME_FACTOR = 40.0  # a simulated hour lasts ninety seconds, so that values change visibly

HOSTS = (
    ("linux/amd64", "docker", 46),
    ("linux/arm64", "docker", 17),
    ("linux/amd64", "kubernetes", 15),
    ("linux/amd64", "standalone", 13),
    ("freebsd/amd64", "standalone", 4),
    ("windows/amd64", "standalone", 3),
    ("darwin/arm64", "standalone", 2),
)
ENVIRONMENTS = (("production", 82), ("staging", 8), ("dev", 7), ("ci", 3))

Metrics = dict[str, object]


@dataclass(frozen=True, slots=True)
class Persona:
    """The constant properties of a simulated install."""

    number: int
    os_arch: str
    deployment_mode: str
    environment: str
    size: float  # a factor of its counters; most installs are small, a few are very large
    installed_at: float  # in Unix time
    update_rank: float  # from 0 to 1; installs with a lower rank update earlier
    ended_at: float | None = None  # in Unix time, of an install that no longer exists

    def directory(self, folder: Path) -> Path:
        """Where its identity is, in the directory of the fleet."""
        return folder / f"{self.number:06}"


@dataclass(frozen=True, slots=True)
class Application:
    """An application. `releases` are versions, newest first, with their age in days at the first start of the demo."""

    name: str
    share: int
    releases: Sequence[tuple[str, float]]
    counters: Callable[[Persona, float, random.Random], Metrics]

    def version(self, persona: Persona, now: float, started_at: float) -> str:
        """The version of an install at `now`: the newest that it was set up with or has been updated to."""
        delay_s = ADOPTION_DAYS * DAY_S * persona.update_rank / (1 - persona.update_rank)
        for version, age_days in self.releases:
            released_at = started_at - age_days * DAY_S
            if released_at <= persona.installed_at or released_at + delay_s <= now:
                return version
        return self.releases[-1][0]

    def report(self, persona: Persona, now: float) -> Metrics:
        """The counters of the install at `now` (Unix time), with its system metrics."""
        noise = random.Random(f"{persona.number}/{int(now)}")
        hours = max(0.0, now - persona.installed_at) / 3600
        system_metrics: Metrics = {
            "sys_os": persona.os_arch.partition("/")[0],
            "sys_cpu_cores": 2 ** (persona.number % 5),
            "sys_mode": persona.deployment_mode,
            "app_mem_rss_mb": round(90 + 40 * math.log1p(persona.size) + noise.uniform(-6, 6)),
            "app_cpu_pct": round(min(96.0, 2 + 3 * math.log1p(persona.size) * noise.uniform(0.5, 1.6)), 1),
            "app_uptime_h": int(hours) % (24 * (7 + persona.number % 40)),
        }
        if persona.environment == "ci":
            system_metrics["sys_ephemeral"] = True
        return self.counters(persona, hours * TIME_FACTOR, noise) | system_metrics


def make_installs(count: int, started_at: float, first: int = 0) -> Iterator[tuple[Application, Persona]]:
    """`count` installs of the three applications, in proportion to their shares, with numbers from `first` on."""
    total = sum(application.share for application in APPLICATIONS)
    ends = [round(count * part / total) for part in accumulate(application.share for application in APPLICATIONS)]
    for application, start, end in zip(APPLICATIONS, [0, *ends[:-1]], ends, strict=True):
        for number in range(start, end):
            yield application, _make_persona(application, first + number, started_at)


def make_former_installs(count: int, started_at: float) -> Iterator[tuple[Application, Persona]]:
    """Installs that ended before the first start of the demo, for a fleet of `count`."""
    for application, persona in make_installs(count // FORMER_SHARE, started_at, first=count):
        life_s = started_at - persona.installed_at
        yield application, replace(persona, ended_at=persona.installed_at + life_s * (1 - persona.update_rank))


def _make_persona(application: Application, number: int, started_at: float) -> Persona:
    """The install of that number, which always has the same properties."""
    rng = random.Random(f"{application.name}/{number}")
    os_arch, mode, _ = rng.choices(HOSTS, [weight for *_, weight in HOSTS])[0]
    environment, _ = rng.choices(ENVIRONMENTS, [weight for _, weight in ENVIRONMENTS])[0]
    return Persona(
        number=number,
        os_arch=os_arch,
        deployment_mode=mode,
        environment=environment,
        size=math.exp(rng.gauss(2.2, 1.1)),
        installed_at=started_at - rng.random() * OLDEST_INSTALL_DAYS * DAY_S,
        update_rank=rng.random(),
    )


def _ledger(persona: Persona, hours: float, noise: random.Random) -> Metrics:
    users = 2 + int(persona.size * 1.4)
    invoices = int(hours * persona.size / 190)
    return {
        "invoices_sent": invoices,
        "users_active": max(1, users - noise.randrange(1 + users // 4)),
        "revenue_eur": round(invoices * (38 + persona.number % 60) + noise.random() * 100, 2),
        "jobs": {"run": int(hours * 0.8), "failed": int(hours * 0.8) // (90 + persona.number % 80)},
        "sso_enabled": persona.size > 18,
        "beta_ui": persona.update_rank < 0.45,
        "database": "postgres" if persona.size > 7 else "sqlite",
        "locale": ("fr", "de", "en", "en", "nl", "it")[persona.number % 6],
    }


def _kiosk(persona: Persona, hours: float, noise: random.Random) -> Metrics:
    screens = 1 + int(persona.size / 2)
    return {
        "screens_online": max(0, screens - int(noise.random() < 0.1)),
        "plays_total": int(hours * screens * 11),
        "playlists": 2 + int(persona.size / 3),
        "cache_hit_rate": round(0.82 + 0.17 * noise.random(), 3),
        "offline_mode": persona.number % 9 == 0,
        "renderer": "webgl" if persona.number % 4 else "canvas",
    }


def _cafe_board(persona: Persona, hours: float, noise: random.Random) -> Metrics:
    orders = int(hours * persona.size / 60)
    return {
        "orders_served": orders,
        "pizzas_eaten": orders // 3,
        "menu_items": 12 + persona.number % 30,
        "avg_wait_s": round(210 + 90 * noise.random() - 20 * math.log1p(persona.size), 1),
        "takeaway": persona.number % 3 != 0,
        "payment": ("card", "card", "cash", "voucher")[persona.number % 4],
    }


APPLICATIONS = (
    Application("Ledger", 55, (("1.5.0", 3), ("1.4.2", 50), ("1.4.1", 140), ("1.3.9", 260), ("1.2.0", 500)), _ledger),
    Application("Kiosk", 30, (("3.1.0", 30), ("3.0.4", 170), ("2.9.8", 500)), _kiosk),
    Application("Café Board", 15, (("0.9.3", 70), ("0.9.2", 210), ("0.8.0", 500)), _cafe_board),
)
