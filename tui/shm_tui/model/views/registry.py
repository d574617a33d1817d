"""Loads the module of a view when it is first opened: the first screen needs none of them."""

from shm_tui.model.place import ViewName
from shm_tui.model.views.base import View


def make_view(name: ViewName) -> View:
    """A new view. Raises KeyError for the list of instances, which is a table of its own."""
    match name:
        case "fleet":
            from shm_tui.model.views.fleet import FleetView

            return FleetView()
        case "versions":
            from shm_tui.model.views.versions import VersionsView

            return VersionsView()
        case "lifecycle":
            from shm_tui.model.views.lifecycle import LifecycleView

            return LifecycleView()
        case "breakdown":
            from shm_tui.model.views.breakdown import BreakdownView

            return BreakdownView()
        case "metric":
            from shm_tui.model.views.metric import MetricView

            return MetricView()
        case "instance":
            from shm_tui.model.views.instance import InstanceView

            return InstanceView()
        case "events":
            from shm_tui.model.views.events import EventsView

            return EventsView()
        case "application":
            from shm_tui.model.views.application import ApplicationView

            return ApplicationView()
        case "tokens":
            from shm_tui.model.views.tokens import TokensView

            return TokensView()
        case "audit":
            from shm_tui.model.views.audit import AuditView

            return AuditView()
        case "instances":
            raise KeyError(name)
