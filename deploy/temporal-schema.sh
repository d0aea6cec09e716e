#!/bin/sh
# Brings Temporal's two databases to the schema of this image. Repeating it changes nothing; it runs on every start, so
# that a newer image finds its schema. The connection comes from SQL_*.
set -eu

for name in temporal visibility; do
    database=temporal
    [ "$name" = visibility ] && database=temporal_visibility
    temporal-sql-tool --database "$database" setup-schema --version 0.0
    temporal-sql-tool --database "$database" update-schema \
        --schema-dir "/etc/temporal/schema/postgresql/v12/$name/versioned"
done
