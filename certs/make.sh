#!/bin/sh
# Makes test certificates with openssl: an authority and what it signed, good for 30 days.
# Usage: certs/make.sh [FOLDER]; without one, beside this script. Keys are readable by you alone.
set -eu
folder=${1:-$(dirname "$0")}
mkdir -p "$folder"
cd "$folder"
umask 077

days=30
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

cat >"$work/ca.cnf" <<END
[req]
distinguished_name = name
prompt = no
x509_extensions = ca
[name]
CN = ravelin test CA
[ca]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;DNS:ravelin.test, permitted;DNS:corp.test, permitted;IP:127.0.0.0/255.0.0.0, permitted;IP:::1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
END
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -new -x509 -config "$work/ca.cnf" -key ca.key -days $days -out ca.pem

# issue NAME KIND USAGE SUBJECT-ALT-NAMES
issue() {
    case "$2" in
    ec) openssl ecparam -name prime256v1 -genkey -noout |
        openssl pkcs8 -topk8 -nocrypt -out "$1.key" ;;
    rsa) openssl genrsa -out "$1.key" 2048 2>/dev/null ;;
    esac
    cat >"$work/$1.cnf" <<END
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = $3
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $4
END
    openssl req -new -key "$1.key" -subj "/CN=$1" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -days $days \
            -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/$1.cnf" -out "$1.pem" 2>/dev/null
    openssl verify -x509_strict -CAfile ca.pem "$1.pem"
}

hosts="DNS:gw.ravelin.test, DNS:*.ravelin.test, IP:127.0.0.1, IP:::1"
issue gw ec serverAuth "$hosts"
issue gw-rsa rsa serverAuth "$hosts"
issue backend ec serverAuth "DNS:*.corp.test, IP:127.0.0.1, IP:::1"
issue device ec clientAuth "DNS:device.ravelin.test"
