-- A user's context in one call: two functions, two indexes and the grants they need.
--
-- Creates, in a schema hr that has regions, slots, employees and assignments:
--   hr.get_user_context_by_email(p_email text) returns jsonb
--   hr.get_user_contexts_by_emails(p_emails text[]) returns jsonb
--   an index on hr.employees for the e-mail rule and one on hr.assignments (employee_id)
--   for service_role: execute on both functions, usage on the schema, select on the four tables
-- No table, column or row is created or changed.
--
-- Apply: paste the whole file into the SQL editor and run it as the owner of the tables (on Supabase: postgres), or
--        ctxmiddleware sql show 0001_user_context | psql --single-transaction -v ON_ERROR_STOP=1
-- Again: applying it twice changes nothing.
-- Undo:  ctxmiddleware sql show 0001_user_context.down
--
-- The owner matters. Both functions are SECURITY DEFINER: they read the tables with the rights of the role that runs
-- this file, and only that role may replace them. Where row security binds even that role, this file and the functions
-- fail (row_security = off): a hidden row would have made an employee an unknown user.
--
-- Building the indexes blocks writes for as long as it takes (100,000 employees: under a second). On larger tables
-- build them first with CREATE INDEX CONCURRENTLY under the same names; this file then leaves them alone.

-- The e-mail rule: ASCII white space stripped, A-Z lowered, nothing else. The queries below repeat the expression word
-- for word, or the index is not used. \x0B and not \v: on PostgreSQL 16, E'\v' is the letter v, and victor@ would
-- become ictor@. "C" and not the database's locale: others lower letters that Python leaves, or the reverse.
-- Not unique: two employees under one address must not stop the installation; the functions refuse that address.
create index if not exists ctxmiddleware_employees_email_idx on hr.employees
  (lower(btrim(email::text, E' \t\n\r\f\x0B') collate "C"));

create index if not exists ctxmiddleware_assignments_employee_id_idx on hr.assignments (employee_id);

-- One block, because a function is born executable by everybody: created and revoked must be one step even where a
-- tool commits after each statement.
do $install$
declare
  foreign_functions text;
  earlier_note text;
  given text[] := '{}';
  privilege record;
  stranger text;
begin
  select string_agg(f.oid::regprocedure::text, ', ')
  into foreign_functions
  from pg_proc as f
  where f.pronamespace = 'hr'::regnamespace
    and f.proname in ('get_user_context_by_email', 'get_user_contexts_by_emails')
    and coalesce(obj_description(f.oid, 'pg_proc'), '') not like 'ctxmiddleware 0001:%';
  if foreign_functions is not null then
    raise exception 'not created by this migration: %', foreign_functions
      using errcode = 'duplicate_function',
        hint = 'Drop or rename it first: replacing it would lose it, and a second signature makes the call ambiguous.';
  end if;

  -- An object keyed by the addresses exactly as they were sent, whatever their spelling:
  --   a known user: UserContext without zones; an unknown user: null;
  --   an address that two employees share: left out, so that neither gets the other's context.
  -- NULL elements are ignored; no addresses give {}. Callers send at most 100; the work grows with their number.
  create or replace function hr.get_user_contexts_by_emails(p_emails text[])
  returns jsonb
  language plpgsql
  stable
  security definer
  set search_path = ''
  set row_security = off
  -- By index whatever the statistics say: few slots or stale counts make the planner read whole tables (measured on
  -- tables loaded and not yet analysed: 27 ms for 100 addresses instead of 6), and pooled sessions keep such a plan.
  set enable_seqscan = off
  -- The plan is the same for every address, and making it takes longer than running it.
  set plan_cache_mode = force_generic_plan
  as $contexts$
  begin
    return (
      select coalesce(
        pg_catalog.jsonb_object_agg(
          asked.address,
          case when employee.id is not null then
            pg_catalog.jsonb_build_object(
              'email', asked.email,
              'employee', pg_catalog.jsonb_build_object(
                'id', employee.id,
                'email', employee.email,
                'full_name', employee.full_name,
                'job_title', employee.job_title,
                'role', employee.role,
                'is_active', employee.is_active
              ),
              'assignments', coalesce(assignments.list, '[]'),
              'slots', coalesce(slots.list, '[]'),
              'regions', coalesce(regions.list, '[]')
            )
          end
        ),
        '{}'
      )
      from (
        select distinct
          sent.address,
          pg_catalog.lower(pg_catalog.btrim(sent.address, E' \t\n\r\f\x0B') collate pg_catalog."C") as email
        from pg_catalog.unnest(p_emails) as sent (address)
        where sent.address is not null
      ) as asked
      left join lateral (
        select
          e.id, e.email, e.full_name, e.job_title, e.role, e.is_active,
          pg_catalog.count(*) over () as sharers
        from hr.employees as e
        where pg_catalog.lower(pg_catalog.btrim(e.email::pg_catalog.text, E' \t\n\r\f\x0B') collate pg_catalog."C")
          = asked.email
      ) as employee on true
      left join lateral (
        select
          pg_catalog.array_agg(distinct a.slot_id) as slot_ids,
          pg_catalog.jsonb_agg(
            pg_catalog.jsonb_build_object(
              'id', a.id,
              'employee_id', a.employee_id,
              'slot_id', a.slot_id,
              'is_primary', a.is_primary,
              'starts_on', a.starts_on,
              'ends_on', a.ends_on
            ) order by a.id
          ) as list
        from hr.assignments as a
        where a.employee_id = employee.id
      ) as assignments on true
      left join lateral (
        select
          pg_catalog.array_agg(distinct s.region_id) as region_ids,
          pg_catalog.jsonb_agg(
            pg_catalog.jsonb_build_object('id', s.id, 'code', s.code, 'name', s.name, 'region_id', s.region_id)
            order by s.id
          ) as list
        from hr.slots as s
        where s.id = any (assignments.slot_ids)
      ) as slots on true
      left join lateral (
        select pg_catalog.jsonb_agg(
            pg_catalog.jsonb_build_object('id', r.id, 'code', r.code, 'name', r.name) order by r.id
          ) as list
        from hr.regions as r
        where r.id = any (slots.region_ids)
      ) as regions on true
      where coalesce(employee.sharers, 1) = 1
    );
  end
  $contexts$;

  -- One user: UserContext without zones, or NULL for an unknown user and for NULL. Inactive employees are answered too.
  -- An address that two employees share raises 21000 (cardinality_violation); the message does not hold the address.
  create or replace function hr.get_user_context_by_email(p_email text)
  returns jsonb
  language plpgsql
  stable
  security definer
  set search_path = ''
  as $context$
  declare
    answer constant pg_catalog.jsonb := hr.get_user_contexts_by_emails(array[p_email]) -> p_email;
  begin
    if p_email is not null and answer is null then
      raise exception 'two or more employees share this address, so it belongs to none of them'
        using errcode = 'cardinality_violation',
          hint = 'Addresses are compared without surrounding white space and A-Z lowered: see hr.employees.email.';
    end if;
    return nullif(answer, 'null');
  end
  $context$;

  -- Whoever may call these learns who works here: nobody but the server's own role.
  revoke all on function hr.get_user_context_by_email(text), hr.get_user_contexts_by_emails(text[]) from public;
  for stranger in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
    execute format(
      'revoke all on function hr.get_user_context_by_email(text), hr.get_user_contexts_by_emails(text[]) from %I',
      stranger);
  end loop;

  -- What service_role has already is not granted again, and what is granted is noted in the function's comment: the
  -- way back revokes exactly that, and never what an installation had before.
  earlier_note := coalesce(obj_description('hr.get_user_context_by_email(text)'::regprocedure, 'pg_proc'), '');
  if exists (select from pg_roles where rolname = 'service_role') then
    grant execute on function hr.get_user_context_by_email(text), hr.get_user_contexts_by_emails(text[])
      to service_role;
    for privilege in
      select 'usage on schema hr' as name, has_schema_privilege('service_role', 'hr', 'usage') as held
      union all
      select 'select on hr.' || tables.name, has_table_privilege('service_role', 'hr.' || tables.name, 'select')
      from unnest(array['regions', 'slots', 'employees', 'assignments']) as tables (name)
    loop
      if not privilege.held then
        execute format('grant %s to service_role', privilege.name);
      end if;
      if not privilege.held or position(privilege.name in earlier_note) > 0 then
        given := given || privilege.name;
      end if;
    end loop;
  else
    raise warning 'there is no role service_role here: grant execute on both functions to the role that calls them';
  end if;
  execute format(
    'comment on function hr.get_user_context_by_email(text) is %L',
    'ctxmiddleware 0001: the context of one user, or null. Granted to service_role with it: '
      || coalesce(nullif(array_to_string(given, ', '), ''), 'nothing'));
  comment on function hr.get_user_contexts_by_emails(text[])
    is 'ctxmiddleware 0001: the contexts of many users, keyed by the addresses sent.';

  -- Reads nothing, but names every table and column: a schema that does not fit fails here and not on a request.
  perform hr.get_user_contexts_by_emails('{}');
end
$install$;

notify pgrst, 'reload schema';
