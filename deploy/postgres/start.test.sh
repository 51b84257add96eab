# What the real image's entry point does: a database cluster where there is none, then the server as process 1.
set -eu
data=/var/lib/postgresql/data programs=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s "$data/PG_VERSION" ]; then
    printf '%s' "${POSTGRES_PASSWORD:?}" > /tmp/password
    "$programs/initdb" --pgdata "$data" --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_USER" | "$programs/postgres" --single -D "$data" postgres
fi
exec "$programs/postgres" -D "$data" -c listen_addresses='*' -k /var/run/postgresql
