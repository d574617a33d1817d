"""The admin API's changes: decisions on instances, changes of many instances, and edits of applications.

They need an admin's token, and raise RefusedError for a viewer's. Every change of many instances has a preview.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote, urlencode

import msgspec

from .api import API_PATH, Api, application_path
from .errors import ClientError
from .model import ApplicationSettings, BulkChange, MetricKey, MetricOverride, decode

Decision = Literal["approve", "revoke", "erase"]

_BULK_ACTIONS: dict[Decision, str] = {"approve": "approve", "revoke": "revoke", "erase": "delete"}


class ChangesApi(Api):
    """An `Api` that also changes something."""

    async def decide(self, instance_id: str, decision: Decision) -> None:
        """Approves, revokes or erases an instance. The feed sends the change."""
        path = f"{API_PATH}/instances/{quote(instance_id, safe='')}"
        if decision == "erase":
            self._require(await self._send("DELETE", path), HTTPStatus.NO_CONTENT)
        else:
            self._require(await self._send("POST", f"{path}/{decision}"), HTTPStatus.OK)

    async def decide_many(
        self,
        decision: Decision,
        slug: str | None,
        *,
        conditions: Sequence[str] = (),
        instance_ids: Sequence[str] = (),
        is_preview: bool,
    ) -> BulkChange:
        """Decides on the instances of an application, or of all (None), that match conditions or have these IDs.

        The server does it in the background. A preview counts them and changes nothing. At most 1,000 IDs.
        """
        body: dict[str, object] = {"action": _BULK_ACTIONS[decision], "dry_run": is_preview}
        body |= {"app": slug} if slug is not None else {}
        body |= {"where": list(conditions)} if conditions else {}
        body |= {"instance_ids": list(instance_ids)} if instance_ids else {}
        return await self._change_many("POST", f"{API_PATH}/instances/bulk", body)

    async def bulk_change(self, change_id: str) -> BulkChange | None:
        """A change of many instances with its progress; None if it is not among the newest 50."""
        response = await self._get(f"{API_PATH}/bulk-changes?{urlencode({'limit': 50})}")
        changes: list[BulkChange] = self._decode(response, list[BulkChange])
        return next((change for change in changes if change.id == change_id), None)

    async def application(self, slug: str) -> ApplicationSettings:
        """An application with the vendor's settings."""
        return self._decode(await self._get(application_path(slug)), ApplicationSettings)

    async def edit_application(self, slug: str, changes: Mapping[str, object]) -> ApplicationSettings:
        """Changes the settings of an application: the members of the API's `PUT applications/{slug}`."""
        response = await self._send("PUT", application_path(slug), changes)
        self._require(response, HTTPStatus.OK)
        return self._decode(response, ApplicationSettings)

    async def edit_metric(
        self, slug: str, key: str, values: Mapping[str, object], *, is_public: bool | None = None
    ) -> ApplicationSettings:
        """Changes values of a metric's override, None removes one, and whether badges may show it, unless it is None.

        All other values stay as the server has them: none is written back as the sanitizer changed it. Raises
        ClientError if no metric has this key after sanitizing, or several have it.
        """
        key = await self._stored_key(slug, key)
        response = await self._get(application_path(slug))
        stored: ApplicationSettings = decode(response.content, ApplicationSettings)
        override: dict[str, object] = msgspec.to_builtins(stored.overrides.get(key, MetricOverride()))
        override = {name: value for name, value in (override | dict(values)).items() if value not in (None, False)}
        changes: dict[str, object] = {"overrides": {key: override or None}}
        if is_public is not None and is_public != (key in stored.public_metrics):
            others = [each for each in stored.public_metrics if each != key]
            changes["public_metrics"] = [*others, key] if is_public else others
        return await self.edit_application(slug, changes)

    async def _stored_key(self, slug: str, key: str) -> str:
        """The key that the server has, of one that may have been sanitized. A key that looks equal directs no edit."""
        response = await self._get(f"{API_PATH}/metric-keys?{urlencode({'app': slug})}")
        metrics: list[MetricKey] = decode(response.content, list[MetricKey])
        stored = [metric.key for metric in metrics]
        candidates = [each for each in stored if self.sanitize(each) == key]
        if len(candidates) > 1:
            raise ClientError(f"several metrics look like {key}; the API can name each of them")
        if not candidates:
            raise ClientError(f"the server has no metric {key} any more")
        return candidates[0]

    async def refresh_stars(self, slug: str) -> None:
        """Reads the stars of the application's repository from GitHub."""
        self._require(await self._send("POST", f"{application_path(slug)}/refresh-stars"), HTTPStatus.OK)

    async def merge_application(self, slug: str, into: str, *, is_preview: bool) -> BulkChange:
        """Moves all instances of an application to another one, in the background, or counts them."""
        return await self._change_many("POST", f"{application_path(slug)}/merge", {"into": into, "dry_run": is_preview})

    async def delete_application(self, slug: str, *, is_preview: bool) -> BulkChange:
        """Deletes an application with all instances, in the background, or counts them."""
        query = "?dry_run=true" if is_preview else ""
        return await self._change_many("DELETE", f"{application_path(slug)}{query}", None)

    async def _change_many(self, method: str, path: str, body: Mapping[str, object] | None) -> BulkChange:
        response = await self._send(method, path, body)
        self._require(response, HTTPStatus.ACCEPTED)
        return self._decode(response, BulkChange)
