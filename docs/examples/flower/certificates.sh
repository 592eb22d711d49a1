#!/usr/bin/env bash
# usage: certificates.sh FOLDER NODES [ADDRESS]
# Makes an authority, the SuperLink's certificate for an address (default: this machine), and a key for each node.
set -euo pipefail
mkdir -p "$1"
cd "$1"
umask 077
address=${3:-IP:127.0.0.1}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 365 -subj "/CN=Federation authority" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" \
    -keyout authority.key -out authority.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -subj "/CN=SuperLink" \
    -keyout superlink.key -out superlink.csr
printf '%s\n' "subjectAltName=$address" "keyUsage=digitalSignature" "extendedKeyUsage=serverAuth" \
    "authorityKeyIdentifier=keyid" > superlink.ext
openssl x509 -req -in superlink.csr -CA authority.pem -CAkey authority.key -days 90 -extfile superlink.ext \
    -out superlink.pem
rm superlink.csr superlink.ext

for ((node = 0; node < $2; node++)); do
    ssh-keygen -q -t ecdsa -b 384 -N "" -C "node $node" -f "node-$node"
done
