//! Why a credential was rejected. Clients receive one answer for all causes; the cause is for
//! metrics and for `sluicegate token explain`.

/// The check that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// The request has no credential.
    #[error("there is no credential")]
    Missing,
    /// The credential is neither a JSON Web Token nor a known API key, or a header or type of the
    /// token is not allowed.
    #[error("it is neither a well-formed token nor a known API key")]
    Malformed,
    /// No `[[issuer]]` has the token's `iss`.
    #[error("no [[issuer]] has its `iss`")]
    UnknownIssuer,
    /// The issuer's key set has no key with the token's `kid` and `alg`.
    #[error("its issuer's key set has no key with its `kid` and `alg`")]
    UnknownKey,
    /// The issuer's keys have not been read yet.
    #[error("the keys of its issuer have not been read yet")]
    NoKeys,
    /// The token's algorithm is not one of its issuer's.
    #[error("its `alg` is not one of its issuer's algorithms")]
    Algorithm,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// A required claim is missing, or a claim has another type.
    #[error("a claim is missing or has the wrong type: it needs `exp` as a number and `sub`")]
    Claims,
    /// The token is for another audience.
    #[error("it is for another audience")]
    Audience,
    /// The credential has expired. Everything else about it is right.
    #[error("it has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("it is not valid yet (`nbf`)")]
    NotYetValid,
    /// The key that vouched for the credential was removed.
    #[error("the key that vouched for it was removed")]
    Revoked,
    /// A ticket is for another route.
    #[error("it is a ticket for another route")]
    OtherRoute,
    /// A page of another origin sent a cookie.
    #[error("a page of another origin sent the cookie")]
    Origin,
    /// The client lacks a scope or a claim that the route requires.
    #[error("it lacks a scope of the route")]
    Scope,
}

/// A credential that was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The check that failed.
    pub denial: Denial,
    /// For [`Denial::UnknownKey`]: the issuer's place in the config. Its keys may be newer than
    /// those known here.
    pub issuer: Option<usize>,
}

impl From<Denial> for Rejected {
    fn from(denial: Denial) -> Self {
        let issuer = None;
        Self { denial, issuer }
    }
}

impl Denial {
    /// Whether a signature was checked before the check that failed.
    pub(super) const fn is_after_signature(self) -> bool {
        matches!(self, Self::Signature | Self::NotYetValid | Self::Expired)
    }
}
