"""Command-line flags made from a settings class: one per field, its description as the help."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from gfsprotocol.settings import Settings, load

_Settings = TypeVar("_Settings", bound=Settings)


def flag_name(field: str) -> str:
    """The flag of a field: ``lease_seconds`` is ``--lease-seconds``."""
    return "--" + field.replace("_", "-")


def settings_command(
    name: str, kind: type[_Settings], run: Callable[[_Settings], int], help_text: str
) -> click.Command:
    """A command that loads ``kind`` from ``--config`` and flags, and runs a process with it."""

    def callback(config: Path | None, **flags: Any) -> int:
        given = {field: list(value) if isinstance(value, tuple) else value for field, value in flags.items()}
        return run(load(kind, config, {field: value for field, value in given.items() if value not in (None, [])}))

    parameters: list[click.Parameter] = [
        click.Option(["--config"], type=click.Path(path_type=Path, dir_okay=False), help="A TOML file of settings.")
    ]
    prefix = str(kind.model_config.get("env_prefix", ""))
    parameters += [_option(field, info, prefix) for field, info in kind.model_fields.items()]
    return click.Command(name, callback=callback, params=parameters, help=help_text)


def _option(field: str, info: FieldInfo, prefix: str) -> click.Option:
    flag, kind, repeated = flag_name(field), _plain_type(info.annotation), False
    if get_origin(kind) is list:
        kind, repeated = get_args(kind)[0], True
    if kind is bool:
        declarations, click_type = [f"{flag}/--no-{flag[2:]}"], None
    else:
        declarations, click_type = [flag], _CLICK_TYPES.get(kind, click.STRING)
    notes = [f"environment: {prefix}{field}".upper().replace("ENVIRONMENT", "environment")]
    if not info.is_required() and info.default_factory is None and info.default not in (None, ""):
        notes.insert(0, f"default: {info.default}")
    return click.Option(
        [*declarations, field],
        type=click_type,
        multiple=repeated,
        default=None,
        help=f"{info.description}{' May be repeated.' if repeated else ''}  [{'; '.join(notes)}]",
    )


_CLICK_TYPES: dict[Any, click.ParamType[Any]] = {
    int: click.INT,
    float: click.FLOAT,
    Path: click.Path(path_type=Path),
}


def _plain_type(annotation: Any) -> Any:
    """The type that a field has when it is given: ``int | None`` is ``int``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation
