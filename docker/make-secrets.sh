#!/bin/sh
# Makes the secrets that docker-compose.yml names, in secrets/ beside it; what is there already stays as it is.
# Compose mounts the files as they are, so they must be readable by the containers' users; that nobody else reads
# them is the folder's business. Certificate and key of the TLS proxy are yours: tls_certificate and tls_key, as PEM.
set -eu
cd "$(dirname "$0")/.."
umask 022
mkdir -p secrets
chmod 0700 secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
make() {
    if [ -e "secrets/$1" ]; then echo "secrets/$1 is there already"; else printf '%s\n' "$2" > "secrets/$1"; fi
}

make postgres_password "$(random)"
make mitosis_database_url "postgresql+psycopg://mitosis:$(cat secrets/postgres_password)@postgres:5432/mitosis"
make valkey_conf "requirepass $(random)"
make mitosis_broker_url "redis://:$(cut -d' ' -f2 secrets/valkey_conf)@valkey:6379/0"
make mitosis_callback_secret "whsec_$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | head -c 32 | base64)"
make grafana_password "$(random)"
