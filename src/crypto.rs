//! Randomness, keyed hashes and sealing: the door to aws-lc-rs, beside TLS and tokens.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    constant_time, digest,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Bytes from the system's random generator.
///
/// # Panics
///
/// When the system has no randomness: nothing safe could be done then.
#[expect(
    clippy::expect_used,
    reason = "without randomness nothing here is safe"
)]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives randomness");
    bytes
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// SHA-1, for protocols that ask for it without relying on it (RFC 6455, section 4.2.2).
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut hash = [0; 20];
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    hash
}

/// Compares secrets in a time that depends on their lengths only.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// A secret of this process, or of the nodes that share a key file, from which keys are derived.
#[derive(Clone)]
pub struct MasterKey(std::sync::Arc<[u8; 32]>);

impl MasterKey {
    /// A fresh one; good until the process ends.
    pub fn generate() -> Self {
        Self(std::sync::Arc::new(random()))
    }

    /// The one that a shared secret of any length gives.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(std::sync::Arc::new(sha256(secret)))
    }

    /// A key for one purpose (HKDF-SHA256, RFC 5869); different purposes give unrelated keys.
    #[expect(
        clippy::expect_used,
        reason = "32 bytes are within HKDF's limit of 8160"
    )]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                32
            }
        }
        let mut key = [0; 32];
        Salt::new(HKDF_SHA256, b"ravelin")
            .extract(&*self.0)
            .expand(&[purpose.as_bytes()], Length)
            .and_then(|okm| okm.fill(&mut key))
            .expect("a length that HKDF can give");
        key
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// HMAC-SHA256 with one key: what is stored or logged in place of a secret.
#[derive(Clone)]
pub struct KeyedHash(hmac::Key);

impl KeyedHash {
    /// With this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The hash of parts; each part's length is hashed too, so parts cannot run together.
    pub fn of(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHash(..)")
    }
}

/// Encrypts small values that travel through a device (AES-256-GCM, random nonce).
pub struct Sealer(LessSafeKey);

impl Sealer {
    /// With this key.
    ///
    /// # Panics
    ///
    /// Never: a key of 32 bytes fits the algorithm.
    #[expect(clippy::expect_used, reason = "32 bytes are an AES-256 key")]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"),
        ))
    }

    /// Seals `plain`; only the same `purpose` opens it.
    #[expect(clippy::expect_used, reason = "AES-GCM fails only beyond 64 GiB")]
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .expect("the text is short");
        let mut out = nonce.to_vec();
        out.append(&mut sealed);
        out
    }

    /// Opens what [`Sealer::seal`] made for the same purpose; `None` for anything else.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let mut buffer = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut buffer)
            .ok()?
            .len();
        buffer.truncate(plain);
        Some(buffer)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}
