//! Credentials for registries.

use rcon_image::auth::{self, AuthOptions};

use crate::Engine;
use crate::error::Result;

impl Engine {
    /// Checks the credentials with the registry and keeps them.
    ///
    /// # Errors
    /// When the registry refuses them or the file cannot be written.
    pub fn login(
        &self,
        registry: &str,
        user: &str,
        password: &str,
        options: &AuthOptions,
    ) -> Result<()> {
        Ok(auth::login(registry, user, password, options)?)
    }

    /// Forgets the credentials; false when there were none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn logout(&self, registry: &str, options: &AuthOptions) -> Result<bool> {
        Ok(auth::logout(registry, options)?)
    }

    /// Forgets all credentials.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn logout_all(&self, options: &AuthOptions) -> Result<()> {
        Ok(auth::logout_all(options)?)
    }
}
