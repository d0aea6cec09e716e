#!/bin/sh
# Run once by the postgres image, when its volume is empty: a role for Temporal and one for the store, each owning its
# databases and able to reach no others.
set -eu

psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
    --set=temporal_password="$TEMPORAL_DB_PASSWORD" --set=store_password="$STORE_DB_PASSWORD" <<'SQL'
CREATE ROLE temporal LOGIN PASSWORD :'temporal_password';
CREATE ROLE holdfast LOGIN PASSWORD :'store_password';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
CREATE DATABASE holdfast OWNER holdfast;
REVOKE CONNECT ON DATABASE temporal, temporal_visibility, holdfast FROM PUBLIC;
SQL
