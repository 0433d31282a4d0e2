CREATE SCHEMA IF NOT EXISTS nightshift;

-- What the database says of itself: its form, who may use it, and which cluster's it is.
CREATE TABLE nightshift.meta (
    name text PRIMARY KEY,
    value text NOT NULL
);

INSERT INTO nightshift.meta (name, value) VALUES ('cluster', replace(gen_random_uuid()::text, '-', ''));

-- Framed records, in the order of their bytes.
CREATE TABLE nightshift.records (
    tree text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (tree, key)
);

-- Which transactions were committed, for whoever lost the answer; those that never will be say so.
CREATE TABLE nightshift.commits (
    id bytea PRIMARY KEY,
    is_done boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
