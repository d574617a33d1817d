"""The definition of a field of `Settings` and `SshSettings`: variables, parser, default and reason."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """The definition of a setting. `variables` are its environment variables by precedence.

    `default` is a text, which is parsed like a value from the environment; None means that the setting is not set.
    `reason` describes the setting and gives the reason for its default.
    """

    variables: tuple[str, ...]
    parse: Callable[[str], object]
    default: str | None
    reason: str
    has_flag: bool = True
    is_secret: bool = False

    @property
    def file_variables(self) -> tuple[str, ...]:
        """Variables that name a file with the value. Only secrets have them."""
        return tuple(f"{name}_FILE" for name in self.variables) if self.is_secret else ()


def setting(
    variables: str,
    parse: Callable[[str], Any],
    default: str | None,
    reason: str,
    *,
    has_flag: bool = True,
    is_secret: bool = False,
) -> Any:
    """A field with the definition of its setting."""
    spec = SettingSpec(tuple(variables.split()), parse, default, reason, has_flag, is_secret)
    return field(default=None if default is None else parse(default), metadata={"spec": spec})


def setting_specs(settings: "type[DataclassInstance]") -> dict[str, SettingSpec]:
    """Field name -> definition of each setting, in the order of the class."""
    return {field.name: field.metadata["spec"] for field in fields(settings) if "spec" in field.metadata}
