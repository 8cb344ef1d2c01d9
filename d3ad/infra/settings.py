"""Settings: named, typed, checked values, a dataclass each; with what a change of a field asks to be made anew."""
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Self

MACHINE = "machine"  # the stage of fields that change no number, or only by rounding


def setting(default, stage: str = "", allowed: tuple | None = None) -> dataclasses.Field:
    """A field of Settings.

    stage: what has to be made anew where it changes.  allowed: the choices, for text; the lowest and highest value, for
    numbers.
    """
    return dataclasses.field(default=default, metadata=dict(stage=stage, allowed=allowed))


@dataclass(frozen=True)
class Settings:
    """Named, typed, checked values; immutable.  Raises ValueError, naming the field, for a value not allowed."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, allowed = _coerced(field, getattr(self, field.name)), field.metadata["allowed"]
            object.__setattr__(self, field.name, value)
            items = value if isinstance(value, tuple) else (value,)
            if allowed is None:
                continue
            if isinstance(allowed[0], str):
                if not set(items) <= set(allowed):
                    raise ValueError(f"{field.name} must be one of {', '.join(allowed)}; got {value!r}")
            elif not all(allowed[0] <= item <= allowed[1] for item in items):
                raise ValueError(f"{field.name} must lie in {allowed[0]}..{allowed[1]}; got {value!r}")
        self._check_together()

    def _check_together(self) -> None:
        """Raise ValueError for fields that are fine alone and impossible together."""

    @classmethod
    def names(cls, *stages: str) -> tuple[str, ...]:
        """The names of all fields, or of those of these stages."""
        return tuple(f.name for f in dataclasses.fields(cls) if not stages or f.metadata["stage"] in stages)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """From field names and values; unknown names are an error."""
        if unknown := sorted(set(values) - set(cls.names())):
            raise ValueError(f"unknown setting {', '.join(map(repr, unknown))}; {cls.__module__.replace('.', '/')}.py "
                             "lists them all")
        return cls(**values)

    def replace(self, **changes) -> Self:
        """A copy with some fields changed."""
        return self.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict:
        """Field names and values, ready for JSON."""
        values = {name: getattr(self, name) for name in self.names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def hashed(self) -> dict:
        """What `hash` is taken of: as `to_dict`, but for fields that were once written in another way, or not there."""
        return self.to_dict()

    def hash(self, *names: str) -> str:
        """12 hex digits of the given fields; of all but those of stage MACHINE, where none is given.

        Raises KeyError for a name that is no field's.
        """
        if unknown := sorted(set(names) - set(self.names())):
            raise KeyError(", ".join(unknown))
        values = self.hashed()
        chosen = set(values) & set(names) if names else set(values) - set(self.names(MACHINE))
        return hashlib.sha256(json.dumps({k: values[k] for k in sorted(chosen)}).encode()).hexdigest()[:12]


def _coerced(field: dataclasses.Field, value):
    """The value as the field's type; ValueError where it is of another."""
    if str(field.type).startswith("tuple"):
        item = str if "str" in str(field.type) else int
        if isinstance(value, (list, tuple)) and all(type(v) is item for v in value):
            return tuple(value)
        raise ValueError(f"{field.name} must be a list of {item.__name__}; got {value!r}")
    expected = field.type
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ValueError(f"{field.name} must be of type {expected.__name__}; got {value!r}")
    return value
