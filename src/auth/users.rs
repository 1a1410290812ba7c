//! The embedded user file.

use argon2::{Argon2, password_hash::PasswordHasher};

use crate::config::Secret;

/// The Argon2id hash of a password, as it stands in a user file. Slow by design.
///
/// # Panics
///
/// When the system has no randomness for a salt.
#[expect(clippy::expect_used, reason = "the parameters are constant")]
pub fn hash_password(password: &Secret) -> String {
    Argon2::default()
        .hash_password(password.expose())
        .expect("the parameters fit")
        .to_string()
}
