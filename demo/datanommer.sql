-- The tables of datanommer, Fedora's message archive, as plain PostgreSQL tables (in production `messages` is a
-- TimescaleDB hypertable). `timestamp` is the sender's clock, in UTC; `msg` is a JSON document kept as text.

CREATE TABLE users (
    id   serial PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE packages (
    id   serial PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE messages (
    id             serial NOT NULL,
    msg_id         character varying,
    i              integer NOT NULL,
    topic          character varying,
    "timestamp"    timestamp without time zone NOT NULL,
    certificate    text,
    signature      text,
    category       character varying,
    agent_name     character varying,
    crypto         text,
    source_name    character varying,
    source_version character varying,
    msg            text NOT NULL,
    headers        jsonb,
    PRIMARY KEY (id, "timestamp"),
    UNIQUE (msg_id, "timestamp")
);
CREATE INDEX ON messages (msg_id);
CREATE INDEX ON messages (topic);
CREATE INDEX ON messages ("timestamp");
CREATE INDEX ON messages (category);
CREATE INDEX ON messages (agent_name);
CREATE INDEX ON messages USING gin (headers);

-- No foreign key leads to messages: a hypertable cannot be the target of one.
CREATE TABLE users_messages (
    user_id       integer NOT NULL REFERENCES users (id),
    msg_id        integer NOT NULL,
    msg_timestamp timestamp without time zone NOT NULL,
    PRIMARY KEY (user_id, msg_id, msg_timestamp)
);
CREATE INDEX ON users_messages (msg_timestamp);

CREATE TABLE packages_messages (
    package_id    integer NOT NULL REFERENCES packages (id),
    msg_id        integer NOT NULL,
    msg_timestamp timestamp without time zone NOT NULL,
    PRIMARY KEY (package_id, msg_id, msg_timestamp)
);
CREATE INDEX ON packages_messages (msg_timestamp);
