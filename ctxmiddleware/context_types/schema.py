"""What a type of contexts is made of: which parts cannot travel through Redis, and whether anything can be changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias, get_origin

import msgspec
from msgspec import inspect

# Types whose text says all of them, and that their constructors read.
TEXTUAL: Final[tuple[type, ...]] = (
    IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network,
    Path, PurePath, PurePosixPath, PureWindowsPath,
)  # fmt: skip

_JSON: Final = "ctxmiddleware.json"

if TYPE_CHECKING:
    JsonValue: TypeAlias = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
else:
    # No library decodes a recursive union; the mark tells it from an Any, which could be of every type.
    JsonValue = Annotated[Any, msgspec.Meta(extra={_JSON: True})]


class Part(NamedTuple):
    """One type somewhere inside another.

    Args:
        path: the fields that lead to it, such as `team.members[]`; empty for the whole.
        type: what msgspec says of it.
        is_pydantic: whether it is part of a pydantic model, which decides itself how it is stored.
    """

    path: str
    type: inspect.Type
    is_pydantic: bool = False


def parts_of(kind: Any) -> list[Part]:
    """Return a type and all types inside it, the inside of each struct or class once.

    Args:
        kind: a type.

    Raises:
        TypeError: msgspec cannot tell values of it apart.
        NameError: a forward reference names nothing.
    """
    return list(_walk(Part("", inspect.type_info(kind)), set()))


def faults_of(parts: list[Part]) -> list[str]:
    """Return which fields could come back from Redis with another value or type."""
    return [f"{part.path or 'it'} is {fault}" for part in parts if (fault := _fault(part)) is not None]


def description_of(parts: list[Part]) -> str:
    """Return a text that differs for types whose stored values would be read as other ones.

    Names and order of fields are part of it: a layout by position is read wrongly where two fields have changed places.
    """
    return "\n".join(f"{part.path}: {_description(part.type)}" for part in parts)


def is_immutable(parts: list[Part]) -> bool:
    """Return whether no part of a value of this type can be changed, so that requests may share it."""
    return not any(_is_mutable(part.type) for part in parts)


def has_times(parts: list[Part]) -> bool:
    """Return whether values of this type hold times with a zone."""
    return any(isinstance(part.type, inspect.DateTimeType) for part in parts) or any(
        isinstance(part.type, inspect.CustomType) and is_pydantic(part.type.cls) for part in parts
    )


def is_pydantic(kind: object) -> bool:
    """Return whether a class is a pydantic model."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_fields")


def _fault(part: Part) -> str | None:
    match part.type:
        case inspect.AnyType():
            return "Any, which comes back as another type: give its type, or JsonValue"
        case inspect.CustomType(cls=cls) if cls is object:
            return "object, which comes back as another type: give its type, or JsonValue"
        case inspect.CustomType(cls=cls) if not (part.is_pydantic or cls in TEXTUAL or is_pydantic(cls)):
            return f"{cls.__qualname__}, which has no fields that could be stored: make it a dataclass or a Struct"
        case inspect.RawType() | inspect.ExtType() | inspect.MemoryViewType():
            return f"{type(part.type).__name__.removesuffix('Type')}, which is no value of its own"
    return None


def _description(kind: inspect.Type) -> str:
    name = type(kind).__name__
    match kind:
        case inspect.StructType():
            return f"{name} {_fields(kind)} {kind.array_like} {kind.tag_field!r} {kind.tag!r}"
        case inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
            return f"{name} {_fields(kind)}"
        case inspect.EnumType(cls=cls):
            return f"{name} {[(each.name, each.value) for each in cls]}"
        case inspect.LiteralType(values=values):
            return f"{name} {values}"
        case inspect.CustomType(cls=cls) if is_pydantic(cls):
            fields = cls.model_fields.items()  # type: ignore[attr-defined]  # pydantic's own
            read = [(field, str(each.annotation), str(each.validation_alias)) for field, each in fields]
            written = [str(each.serialization_alias) for _, each in fields]
            return f"{name} {cls.__qualname__} {read} {written}"
        case inspect.CustomType(cls=cls):
            return f"{name} {cls.__qualname__}"
    return name


def _fields(kind: Any) -> str:
    # A default is part of what is stored: with `omit_defaults` it is not written, and read as the default of then.
    fields = [(field.name, field.encode_name, field.required, _default(field)) for field in kind.fields]
    return f"{getattr(kind.cls, '__qualname__', kind.cls)} {fields}"


def _default(field: Any) -> str:
    if field.default is msgspec.NODEFAULT:
        factory = field.default_factory
        return getattr(factory, "__qualname__", type(factory).__qualname__)
    try:
        # The same in every process, also of a set.
        return msgspec.json.encode(field.default, enc_hook=_qualname, order="deterministic").decode()
    except (TypeError, ValueError):
        return _qualname(field.default)


def _qualname(value: object) -> str:
    return type(value).__qualname__


def _is_mutable(kind: inspect.Type) -> bool:
    match kind:
        case inspect.ListType() | inspect.SetType() | inspect.DictType() | inspect.ByteArrayType():
            return True
        case inspect.TypedDictType() | inspect.AnyType() | inspect.Metadata():
            return True
        case inspect.StructType(cls=cls):
            return not is_frozen(get_origin(cls) or cls)
        case inspect.DataclassType(cls=cls):
            return not is_frozen(get_origin(cls) or cls)
        case inspect.CustomType(cls=cls):
            return cls not in TEXTUAL
    return False


def is_frozen(cls: type) -> bool:
    """Return whether a Struct, a dataclass or a class of attrs refuses to be changed."""
    if any(isinstance(each, cached_property) for base in cls.__mro__ for each in vars(base).values()):
        return False
    if issubclass(cls, msgspec.Struct):
        return bool(cls.__struct_config__.frozen)
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None:
        return bool(parameters.frozen)
    # attrs names the method that refuses.
    return getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"


def _walk(part: Part, seen: set[object]) -> Iterator[Part]:
    kind = part.type
    if isinstance(kind, inspect.Metadata):
        if (kind.extra or {}).get(_JSON):
            yield part
            return
        kind = kind.type
    yield part._replace(type=kind)
    if id(kind) in seen or (isinstance(kind, inspect.CustomType) and kind.cls in seen):
        return
    if isinstance(kind, inspect.StructType | inspect.DataclassType | inspect.TypedDictType | inspect.NamedTupleType):
        seen.add(id(kind))
    if isinstance(kind, inspect.CustomType) and is_pydantic(kind.cls):
        seen.add(kind.cls)
    is_inside = part.is_pydantic or (isinstance(kind, inspect.CustomType) and is_pydantic(kind.cls))
    for name, inner in _inner(kind):
        yield from _walk(Part(f"{part.path}{name}".lstrip("."), inner, is_inside), seen)


def _inner(kind: inspect.Type) -> Iterator[tuple[str, inspect.Type]]:
    match kind:
        case inspect.UnionType(types=types):
            yield from (("", each) for each in types)
        case inspect.DictType(key_type=key, value_type=value):
            yield "{key}", key
            yield "{}", value
        case inspect.TupleType(item_types=items):
            yield from ((f"[{place}]", each) for place, each in enumerate(items))
        case inspect.CollectionType(item_type=item):
            yield "[]", item
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
            yield from ((f".{field.name}", field.type) for field in kind.fields)
        case inspect.CustomType(cls=cls) if is_pydantic(cls):
            for name, field in cls.model_fields.items():  # type: ignore[attr-defined]  # pydantic's own
                # A type that msgspec cannot read may still be one of pydantic's.
                with suppress(TypeError, NameError):
                    yield f".{name}", inspect.type_info(field.annotation)
