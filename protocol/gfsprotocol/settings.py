"""How every process gets its settings: flags over environment over configuration file over defaults.

Files are TOML. An unknown setting is an error that names it, because a misspelt one that is ignored is worse.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from gfsprotocol.errors import ConfigurationError
from gfsprotocol.tokens import SECRET_BYTES_MIN

_Settings = TypeVar("_Settings", bound="Settings")


class Settings(BaseSettings):
    """Base of all settings classes; each gives an ``env_prefix`` and a description per field."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_nested_delimiter="__")


def _check_addresses(addresses: list[str]) -> list[str]:
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ValueError(f"'{address}' is not host:port")
    return addresses


def _check_level(level: str) -> str:
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
    return level.upper()


Addresses = Annotated[list[str], AfterValidator(_check_addresses)]
"""Each is host:port."""
LogLevel = Annotated[str, AfterValidator(_check_level)]


def load(kind: type[_Settings], file: Path | None = None, flags: dict[str, Any] | None = None) -> _Settings:
    """The settings of ``kind`` from a file, the environment and flags that are not None.

    ConfigurationError, one line that names the setting and the file, if anything is missing, unknown or wrong.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} is not valid TOML: {error}") from error
    prefix = kind.model_config.get("env_prefix", "")
    in_environment = {name for name in kind.model_fields if f"{prefix}{name}".upper() in map(str.upper, os.environ)}
    values = {name: value for name, value in values.items() if name not in in_environment}
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, file)) from error
    except SettingsError as error:  # a list in the environment that is no JSON
        raise ConfigurationError(f"in the environment: {error}") from error


def _one_line(error: ValidationError, file: Path | None) -> str:
    complaints = []
    for detail in error.errors():
        name = ".".join(str(part) for part in detail["loc"]) or "settings"
        if detail["type"] == "extra_forbidden":
            complaints.append(f"unknown setting '{name}'")
        elif detail["type"] == "missing":
            complaints.append(f"setting '{name}' is missing")
        else:
            complaints.append(f"setting '{name}': {detail['msg'].removeprefix('Value error, ')}")
    return (f"{file}: " if file is not None else "") + "; ".join(complaints)


def read_secret(file: Path) -> bytes:
    """The cluster's secret, hexadecimal in a file that only its owner may read."""
    try:
        secret = bytes.fromhex(file.read_text().strip())
        mode = file.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"cannot read the cluster secret {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"the cluster secret {file} is not hexadecimal") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigurationError(f"the cluster secret {file} is shorter than {SECRET_BYTES_MIN} bytes")
    if mode & 0o077:
        raise ConfigurationError(f"the cluster secret {file} can be read by others: chmod 600 it")
    return secret
