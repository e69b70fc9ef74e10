//! One SASL login outside of a [`super::Client`]: for the commands of an operator, which open a
//! connection, ask a few questions and end.

use super::error::SaslError;
use super::sasl::{Auth, Entropy, Exchange, Sasl};
use super::scram::SaslStep;
use crate::model::Secret;

/// The login of one connection. Order of calls: [`Login::begin`], send its message within
/// SaslAuthenticate, then [`Login::on_message`] for each response until it returns `None`.
#[derive(Debug)]
pub struct Login {
    auth: Auth,
    exchange: Exchange,
}

impl Login {
    /// Begins a login, and returns it with its first message. `token` is for OAUTHBEARER.
    #[must_use]
    pub fn begin(sasl: Sasl, token: Option<Secret>, entropy: Entropy) -> (Self, Vec<u8>) {
        let mut auth = Auth::new(Some(sasl), entropy);
        auth.set_token(token);
        let (exchange, message) = auth.begin();
        (Self { auth, exchange }, message)
    }

    /// Takes the broker's message and returns the next one. `None`: the broker has accepted the
    /// login. A password is salted here and now, which takes some milliseconds.
    ///
    /// # Errors
    /// The broker does not know the password, or breaks the protocol.
    pub fn on_message(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, SaslError> {
        loop {
            match self.exchange.on_message(message, &mut self.auth)? {
                SaslStep::Send(next) => return Ok(Some(next)),
                SaslStep::Over => return Ok(None),
                SaslStep::Salt(request) => self.auth.on_salted(request.derive()),
            }
        }
    }

    /// The error for credentials that the broker rejects. `message` is the broker's text.
    #[must_use]
    pub fn refused(&self, message: &str) -> SaslError {
        let against = self.exchange.against().unwrap_or_default();
        self.auth.refused(format!("{against} {message}").trim())
    }
}
