"""An error says what it is and the way out, over real connections."""

from __future__ import annotations

import logging

import pytest

from ctxmiddleware import Identity, InvalidationFailed, SourceMisconfigured, SourceUnavailable, SupabaseSource
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.secret import Secret
from examples.servers import SupabaseFront, SupabaseProject
from examples.servers.valkey import Valkey

from .backends import asyncio_only
from .people import ADA, plugin_of
from .waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_the_error_names_a_port_without_tls(front: SupabaseFront) -> None:
    """The number of an error of OpenSSL is no error number of the system."""
    async with SupabaseSource(front.url.replace("http://", "https://"), Secret(front.secret_key)) as source:
        with pytest.raises(
            SourceUnavailable, match="the port does not speak TLS; write http:// in SUPABASE_URL"
        ) as told:
            await source.fetch(Identity(ADA))
    assert "EPERM" not in str(told.value)


@asyncio_only
async def test_the_error_names_a_redis_without_tls(valkey: Valkey) -> None:
    """Redis waits for the end of an incomplete command, and the client for the reply."""
    options = RedisOptions(invalidation_wait=PATIENCE)
    async with plugin_of(redis=valkey.url.replace("redis://", "rediss://"), redis_options=options) as plugin:
        with pytest.raises(InvalidationFailed, match=r"the port does not speak TLS .then write redis://"):
            await plugin.invalidate(ADA)


async def test_postgrest_without_a_gateway(supabase: SupabaseProject) -> None:
    """The address is right, but the gateway before it is missing."""
    source = SupabaseSource(supabase.postgrest.url, Secret(supabase.keys.service_role))
    async with source:
        with pytest.raises(SourceMisconfigured, match=r"leads to PostgREST itself.*passes /rest/v1/ on"):
            await source.fetch(Identity(ADA))


async def test_a_missing_column_is_named(supabase: SupabaseProject) -> None:
    """By the function and by the tables."""
    rename = "alter table hr.employees rename column {} to {}"
    with supabase.front() as front:
        supabase.execute(rename.format("job_title", "title"), reload=True)
        try:
            async with SupabaseSource(front.url, Secret(front.secret_key)) as source:
                with pytest.raises(SourceMisconfigured, match=r"a column is missing .*: e\.job_title"):
                    await source.fetch(Identity(ADA))
        finally:
            supabase.execute(rename.format("title", "job_title"), reload=True)


async def test_a_schema_of_another_name_is_not_sent_to_the_migration_as_it_is(
    supabase_unmigrated: SupabaseProject, caplog: pytest.LogCaptureFixture
) -> None:
    """The shipped migration creates its functions in hr."""
    caplog.set_level(logging.WARNING, "ctxmiddleware")
    with supabase_unmigrated.front("12") as front:
        async with SupabaseSource(front.url, Secret(front.secret_key), schema="public") as source:
            with pytest.raises(SourceMisconfigured, match="table is missing"):
                await source.fetch(Identity(ADA))
    [told] = [record.getMessage() for record in caplog.records if "is not installed" in record.getMessage()]
    assert told.endswith("it is written for the schema hr: put public there")
