"""What pydantic asks of the reference model: FastAPI endpoints may return it and declare it as their response."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

if TYPE_CHECKING:
    from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema


class PydanticStruct(msgspec.Struct, frozen=True, gc=False):
    """A struct that pydantic can validate, serialise and describe, as soon as something imports pydantic."""

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Yield names and values, as pydantic's own models do: what returns one without a declaration reads them."""
        return ((name, getattr(self, name)) for name in self.__struct_fields__)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic validates and serialises it."""
        from pydantic_core import core_schema

        def read(value: Any) -> PydanticStruct:
            try:
                return value if isinstance(value, cls) else msgspec.convert(value, cls)
            except msgspec.ValidationError as error:
                # Pydantic takes a ValueError for a fault of the value.
                raise ValueError(str(error)) from None

        def write(value: PydanticStruct) -> object:
            # The declared fields only: a response must not show what a derived class adds.
            return msgspec.to_builtins({name: getattr(value, name) for name in cls.__struct_fields__})

        serialise = core_schema.plain_serializer_function_ser_schema(write)
        return core_schema.no_info_plain_validator_function(read, serialization=serialise)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return its JSON schema, and that of the structs inside it."""
        return handler(_model_of(cls).__pydantic_core_schema__)


@cache
def _model_of(kind: type[PydanticStruct]) -> type[BaseModel]:
    from pydantic import create_model

    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.required else field.default)
        for field in msgspec.structs.fields(kind)
    }
    return create_model(kind.__name__, __doc__=kind.__doc__, **fields)
