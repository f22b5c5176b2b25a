-- The way back of 0001_user_context: drops its functions and indexes and revokes the grants it gave, nothing else.
--
-- Functions of the same names that the migration did not create stay, and so do grants that service_role had before.
-- The middleware goes on by itself with plain table queries, as far as service_role may still read the tables.
--
-- Apply: paste the whole file into the SQL editor and run it as the role that applied the migration, or
--        ctxmiddleware sql show 0001_user_context.down | psql --single-transaction -v ON_ERROR_STOP=1
-- Again: applying it twice, or where the migration never was, changes nothing.
-- Undo:  ctxmiddleware sql show 0001_user_context

do $remove$
declare
  note constant text := obj_description(to_regprocedure('hr.get_user_context_by_email(text)'), 'pg_proc');
  privilege text;
  ours regprocedure;
begin
  -- Only these five are ever revoked, whatever the comment says: a comment is no place to take commands from.
  if note like 'ctxmiddleware 0001:%' and exists (select from pg_roles where rolname = 'service_role') then
    foreach privilege in array array[
      'select on hr.regions', 'select on hr.slots', 'select on hr.employees', 'select on hr.assignments',
      'usage on schema hr'
    ] loop
      if position(privilege in note) > 0 and (
        privilege like 'usage%' or to_regclass(replace(privilege, 'select on ', '')) is not null
      ) then
        execute format('revoke %s from service_role', privilege);
      end if;
    end loop;
  end if;

  for ours in
    select f.oid
    from pg_proc as f
    where f.pronamespace = to_regnamespace('hr')
      and f.proname in ('get_user_context_by_email', 'get_user_contexts_by_emails')
      and obj_description(f.oid, 'pg_proc') like 'ctxmiddleware 0001:%'
  loop
    execute format('drop function %s', ours);
  end loop;
end
$remove$;

drop index if exists hr.ctxmiddleware_employees_email_idx;
drop index if exists hr.ctxmiddleware_assignments_employee_id_idx;

notify pgrst, 'reload schema';
