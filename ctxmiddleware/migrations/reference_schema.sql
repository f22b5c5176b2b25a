-- The reference schema: the four tables of schema hr, for the demo, the tests and a first try. No rows.
--
-- An installation that has its own tables does not need this file: 0001_user_context.sql works on any schema hr whose
-- tables carry these columns.
--
-- Apply: paste the whole file into the SQL editor and run it, or
--        ctxmiddleware sql show reference_schema | psql --single-transaction -v ON_ERROR_STOP=1
-- Again: applying it twice changes nothing.
-- Undo:  drop schema hr cascade;   (this deletes the rows too)

create schema if not exists hr;

create table if not exists hr.regions (
  id bigint primary key,
  code text not null,
  name text not null
);

create table if not exists hr.slots (
  id bigint primary key,
  code text not null,
  name text not null,
  region_id bigint not null references hr.regions (id)
);

create table if not exists hr.employees (
  id bigint primary key,
  email text not null,
  full_name text not null,
  job_title text,
  role text not null,
  is_active boolean not null
);

create table if not exists hr.assignments (
  id bigint primary key,
  employee_id bigint not null references hr.employees (id),
  slot_id bigint not null references hr.slots (id),
  is_primary boolean not null,
  starts_on date not null,
  ends_on date
);

-- What the plain table queries look for, so that an installation without the functions is not slowed down artificially.
create index if not exists employees_email_idx on hr.employees (email);
create index if not exists assignments_employee_id_idx on hr.assignments (employee_id);
