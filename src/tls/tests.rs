//! Handshakes over real sockets: versions, names, certificates, tickets, device certificates.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::{
    AlertDescription, ClientConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Acceptor, Refused, Stream,
    certificates::KeyKind,
    testing::{Device, World, connect, handshake, tcp_pair, tls},
};
use crate::{
    config::{self, ClientCertificate},
    crypto::MasterKey,
    listener::peer::Handshake,
};

type Met = (
    Result<(Stream, Handshake), Refused>,
    std::io::Result<Device>,
);

async fn meet(acceptor: &Acceptor, device: &ClientConfig, name: &str) -> Met {
    let (near, far) = tcp_pair().await;
    tokio::join!(handshake(acceptor, near), connect(device, name, far))
}

/// A byte each way: with TLS 1.3 the device only then has its ticket, or learns of a refusal.
async fn exchange(near: &mut Stream, far: &mut Device) {
    near.write_all(b"n").await.unwrap();
    near.flush().await.unwrap();
    far.write_all(b"f").await.unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).await.unwrap();
    near.read_exact(&mut byte).await.unwrap();
}

async fn met(acceptor: &Acceptor, device: &ClientConfig, name: &str) -> (Handshake, Device) {
    let (near, far) = meet(acceptor, device, name).await;
    let ((mut near, handshake), mut far) = (near.unwrap(), far.unwrap());
    exchange(&mut near, &mut far).await;
    (handshake, far)
}

fn leaf(device: &Device) -> Vec<u8> {
    device.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn written(world: &World, name: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    let file = world.path(&format!("{name}.pem"));
    CertificateDer::from_pem_file(file).unwrap().to_vec()
}

fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    if let rustls::Error::AlertReceived(alert) = error.get_ref()?.downcast_ref()? {
        Some(*alert)
    } else {
        None
    }
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_handshake_is_told() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw"]));

    let mut device = world.device_with(&[&TLS13], None);
    device.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let (newer, _) = met(&acceptor, &device, "GW.test").await;
    let (older, _) = met(&acceptor, &world.device_with(&[&TLS12], None), "gw.test").await;

    assert_eq!(newer.sni.as_deref(), Some("gw.test"));
    assert!(newer.known_name && newer.http2 && !newer.resumed);
    assert_eq!(newer.version, "TLSv1.3");
    assert_eq!(newer.group, "X25519MLKEM768");
    assert!(newer.cipher.starts_with("TLS13_"), "{}", newer.cipher);
    assert_eq!(newer.certificate, None);
    assert_eq!(older.version, "TLSv1.2");
    assert!(!older.http2);
    assert!(
        older.cipher.starts_with("TLS_ECDHE_ECDSA_"),
        "{}",
        older.cipher
    );
}

#[tokio::test]
async fn aes_128_is_taken_unless_the_device_prefers_chacha_or_lacks_it() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw"]));

    for (version, offered, taken) in [
        (&TLS13, &["AES_256", "CHACHA20", "AES_128"][..], "AES_128"),
        (&TLS13, &["CHACHA20", "AES_256", "AES_128"], "CHACHA20"),
        (&TLS13, &["AES_256", "CHACHA20"], "AES_256"),
        (&TLS12, &["AES_256", "CHACHA20", "AES_128"], "AES_128"),
        (&TLS12, &["CHACHA20", "AES_128"], "CHACHA20"),
    ] {
        let device = world.device_offering(version, offered);
        let (handshake, _) = met(&acceptor, &device, "gw.test").await;
        assert!(
            handshake.cipher.contains(taken),
            "{offered:?}: {}",
            handshake.cipher
        );
    }
}

#[tokio::test]
async fn tls_1_2_is_refused_where_it_is_off() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let settings = config::Tls {
        tls12: false,
        ..tls()
    };
    let listener = Arc::new(world.listener(&["gw"]));
    let acceptor = Acceptor::load(listener, settings, &MasterKey::generate()).unwrap();

    let (near, far) = meet(&acceptor, &world.device_with(&[&TLS12], None), "gw.test").await;

    assert!(matches!(near, Err(Refused::Handshake { .. })));
    assert_eq!(
        alert(&far.unwrap_err()),
        Some(AlertDescription::ProtocolVersion)
    );
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    world.issue(
        "apps",
        &["*.apps.test", "apps.test"],
        &PKCS_ECDSA_P384_SHA384,
    );
    world.issue("one", &["one.apps.test"], &PKCS_ED25519);
    let acceptor = world.acceptor(world.listener(&["gw", "apps", "one"]));
    let device = world.device();

    for (name, certificate) in [
        ("gw.test", "gw"),
        ("apps.test", "apps"),
        ("two.apps.test", "apps"),
        ("one.apps.test", "one"),
    ] {
        let (handshake, far) = met(&acceptor, &device, name).await;
        assert!(handshake.known_name, "{name}");
        assert_eq!(leaf(&far), written(&world, certificate), "{name}");
    }
}

#[tokio::test]
async fn an_ec_certificate_is_preferred_where_the_device_can_verify_it() {
    let world = World::new();
    world.issue("rsa", &["gw.test"], &PKCS_RSA_SHA256);
    world.issue("ec", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["rsa", "ec"]));
    let kinds: Vec<_> = acceptor.facts().iter().map(|fact| fact.key).collect();
    assert_eq!(kinds, [KeyKind::Rsa, KeyKind::Ec]);

    let mut old = world.device();
    old.dangerous()
        .set_certificate_verifier(Arc::new(Anything(&[SignatureScheme::RSA_PSS_SHA256])));
    let (_, modern) = met(&acceptor, &world.device(), "gw.test").await;
    let (_, old) = met(&acceptor, &old, "gw.test").await;

    assert_eq!(leaf(&modern), written(&world, "ec"));
    assert_eq!(leaf(&old), written(&world, "rsa"));
}

#[tokio::test]
async fn an_unknown_or_absent_name_gets_the_first_certificate() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    world.issue("apps", &["*.apps.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw", "apps"]));
    let mut device = world.device();
    device
        .dangerous()
        .set_certificate_verifier(Arc::new(Anything(&[
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ])));

    let mut anonymous = device.clone();
    anonymous.enable_sni = false;
    let (absent, absent_far) = met(&acceptor, &anonymous, "gw.test").await;
    let (unknown, unknown_far) = met(&acceptor, &device, "a.b.apps.test").await;

    assert!(!absent.known_name && absent.sni.is_none());
    assert_eq!(leaf(&absent_far), written(&world, "gw"));
    assert!(!unknown.known_name);
    assert_eq!(unknown.sni.as_deref(), Some("a.b.apps.test"));
    assert_eq!(leaf(&unknown_far), written(&world, "gw"));
}

#[tokio::test]
async fn a_strict_listener_refuses_unknown_names_with_the_alert_for_it() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(config::Listener {
        strict_sni: true,
        ..world.listener(&["gw"])
    });
    let mut anonymous = world.device();
    anonymous.enable_sni = false;

    for (device, name) in [(world.device(), "other.test"), (anonymous, "gw.test")] {
        let (near, far) = meet(&acceptor, &device, name).await;
        assert!(matches!(near, Err(Refused::UnknownName { .. })));
        assert_eq!(
            alert(&far.unwrap_err()),
            Some(AlertDescription::UnrecognisedName)
        );
    }
    met(&acceptor, &world.device(), "gw.test").await;
}

#[tokio::test]
async fn what_is_not_tls_is_answered_with_an_alert() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw"]));
    let (near, mut far) = tcp_pair().await;

    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = handshake(&acceptor, near).await.unwrap_err();

    assert!(matches!(refused, Refused::Hello { .. }));
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21));
}

#[tokio::test]
async fn a_certificate_is_replaced_without_a_connection_noticing() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw"]));
    let (near, far) = meet(&acceptor, &world.device(), "gw.test").await;
    let (mut near, mut far) = (near.unwrap().0, far.unwrap());
    let before = written(&world, "gw");

    world.issue("gw", &["gw.test", "new.test"], &PKCS_RSA_SHA256);
    acceptor.reload();

    let (_, later) = met(&acceptor, &world.device(), "new.test").await;
    assert_eq!(leaf(&later), written(&world, "gw"));
    assert_eq!(leaf(&far), before);
    exchange(&mut near, &mut far).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_old_certificate() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let acceptor = world.acceptor(world.listener(&["gw"]));
    let good = written(&world, "gw");
    let good_key = fs::read(world.path("gw.key")).unwrap();
    let good_chain = fs::read(world.path("gw.pem")).unwrap();

    world.issue("other", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    world.issue_with("expired", &["gw.test"], &PKCS_ECDSA_P256_SHA256, expired);
    let read = |file: &str| fs::read(world.path(file)).unwrap();
    for (chain, key) in [
        (read("other.pem"), good_key.clone()),
        (b"rubbish".to_vec(), good_key.clone()),
        (good_chain.clone(), b"".to_vec()),
        (read("expired.pem"), read("expired.key")),
    ] {
        fs::write(world.path("gw.pem"), chain).unwrap();
        fs::write(world.path("gw.key"), key).unwrap();
        acceptor.reload();
        let (_, far) = met(&acceptor, &world.device(), "gw.test").await;
        assert_eq!(leaf(&far), good);
    }

    fs::remove_file(world.path("gw.pem")).unwrap();
    acceptor.reload();
    met(&acceptor, &world.device(), "gw.test").await;
    fs::write(world.path("gw.pem"), read("other.pem")).unwrap();
    fs::write(world.path("gw.key"), read("other.key")).unwrap();
    acceptor.reload();
    let (_, far) = met(&acceptor, &world.device(), "gw.test").await;
    assert_eq!(leaf(&far), written(&world, "other"));
}

#[tokio::test]
async fn a_ticket_resumes_at_another_node_and_after_a_new_certificate_for_two_lifetimes() {
    static NOW: AtomicU64 = AtomicU64::new(3600 * 1000);
    let now = || Duration::from_secs(NOW.load(Ordering::Relaxed));
    for version in [&TLS13, &TLS12] {
        let world = World::new();
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        let master = MasterKey::from_secret(b"the nodes share this");
        let node = || {
            let listener = Arc::new(world.listener(&["gw"]));
            Acceptor::load_with(listener, tls(), &master, now).unwrap()
        };
        let (one, two) = (node(), node());
        let device = world.device_with(&[version], None);

        let (first, _) = met(&one, &device, "gw.test").await;
        let (second, _) = met(&two, &device, "gw.test").await;
        world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
        one.reload();
        let (third, _) = met(&one, &device, "gw.test").await;
        NOW.fetch_add(3600, Ordering::Relaxed);
        let (next_lifetime, _) = met(&one, &device, "gw.test").await;
        NOW.fetch_add(2 * 3600, Ordering::Relaxed);
        let (after_two, _) = met(&one, &device, "gw.test").await;

        assert!(!first.resumed, "{version:?}");
        assert!(second.resumed && third.resumed, "{version:?}");
        assert!(next_lifetime.resumed, "{version:?}");
        assert!(!after_two.resumed, "{version:?}");
    }
}

#[tokio::test]
async fn nothing_is_resumed_where_tickets_are_off_or_device_certificates_are_asked_for() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let off = config::Tls {
        ticket_lifetime: Duration::ZERO,
        ..tls()
    };
    let asking = config::Listener {
        client_certificate: ClientCertificate::Optional(world.authority_file()),
        ..world.listener(&["gw"])
    };
    let load = |listener: config::Listener, settings| {
        Acceptor::load(Arc::new(listener), settings, &MasterKey::generate()).unwrap()
    };
    for acceptor in [load(world.listener(&["gw"]), off), load(asking, tls())] {
        for version in [&TLS13, &TLS12] {
            let device = world.device_with(&[version], None);
            met(&acceptor, &device, "gw.test").await;
            let (again, _) = met(&acceptor, &device, "gw.test").await;
            assert!(!again.resumed, "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_ticket_of_an_open_listener_does_not_pass_one_that_requires_a_certificate() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    let master = MasterKey::from_secret(b"one key for both");
    let load = |client_certificate| {
        let listener = config::Listener {
            client_certificate,
            ..world.listener(&["gw"])
        };
        Acceptor::load(Arc::new(listener), tls(), &master).unwrap()
    };
    let open = load(ClientCertificate::None);
    let strict = load(ClientCertificate::Required(world.authority_file()));
    let device = world.device();
    met(&open, &device, "gw.test").await;

    let (near, _far) = meet(&strict, &device, "gw.test").await;

    assert!(matches!(near, Err(Refused::Handshake { .. })));
}

#[tokio::test]
async fn a_device_certificate_is_verified_and_told_by_its_hash() {
    let world = World::new();
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    world.issue("device", &["device.test"], &PKCS_ECDSA_P256_SHA256);
    let stranger = World::new();
    stranger.issue("device", &["device.test"], &PKCS_ECDSA_P256_SHA256);
    fs::copy(stranger.path("device.pem"), world.path("stranger.pem")).unwrap();
    fs::copy(stranger.path("device.key"), world.path("stranger.key")).unwrap();
    let asking = |client_certificate| {
        world.acceptor(config::Listener {
            client_certificate,
            ..world.listener(&["gw"])
        })
    };
    let optional = asking(ClientCertificate::Optional(world.authority_file()));
    let required = asking(ClientCertificate::Required(world.authority_file()));
    let device = |certificate| world.device_with(rustls::ALL_VERSIONS, certificate);

    let hash = crate::crypto::sha256(&written(&world, "device"));
    for acceptor in [&optional, &required] {
        let (handshake, _) = met(acceptor, &device(Some("device")), "gw.test").await;
        assert_eq!(handshake.certificate, Some(hash));
        let (near, _far) = meet(acceptor, &device(Some("stranger")), "gw.test").await;
        assert!(matches!(near, Err(Refused::Handshake { .. })));
    }
    let (handshake, _) = met(&optional, &device(None), "gw.test").await;
    assert_eq!(handshake.certificate, None);
    let (near, _far) = meet(&required, &device(None), "gw.test").await;
    assert!(matches!(near, Err(Refused::Handshake { .. })));
}

#[tokio::test]
async fn new_authorities_for_device_certificates_are_used_after_a_reload() {
    let (world, newer) = (World::new(), World::new());
    world.issue("gw", &["gw.test"], &PKCS_ECDSA_P256_SHA256);
    newer.issue("device", &["device.test"], &PKCS_ECDSA_P256_SHA256);
    fs::copy(newer.path("device.pem"), world.path("newer.pem")).unwrap();
    fs::copy(newer.path("device.key"), world.path("newer.key")).unwrap();
    let acceptor = world.acceptor(config::Listener {
        client_certificate: ClientCertificate::Required(world.authority_file()),
        ..world.listener(&["gw"])
    });
    let device = world.device_with(rustls::ALL_VERSIONS, Some("newer"));

    fs::write(world.authority_file(), "rubbish").unwrap();
    acceptor.reload();
    let (before, _far) = meet(&acceptor, &device, "gw.test").await;
    fs::copy(newer.authority_file(), world.authority_file()).unwrap();
    acceptor.reload();

    before.unwrap_err();
    met(&acceptor, &device, "gw.test").await;
}

/// Takes any certificate, of any name, that is signed with one of these.
#[derive(Debug)]
struct Anything(&'static [SignatureScheme]);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.to_vec()
    }
}
