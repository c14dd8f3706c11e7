-- What a ledger lacks that an older version made.
alter table pgslice.ledger
    add column if not exists format text not null default 'text',
    add column if not exists columns text not null default '',
    add column if not exists time_column text not null default '';
alter table pgslice.feed
    add column if not exists settled text;
