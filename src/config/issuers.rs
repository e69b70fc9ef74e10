//! Where credentials come from: `[[issuer]]` in the file, and what a route asks of its clients
//! (`auth`, `scopes`).

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use super::settings::{Auth, Settings};

/// Most issuers. A token is compared with each of them.
pub const ISSUERS_MAX: usize = 16;

/// Issuers of identities that the gateway makes itself. No `[[issuer]]` may have their names: its
/// subjects could pose as API keys or certificates.
pub const OWN_ISSUERS: [&str; 2] = ["api-key", "certificate"];

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The name in metrics, `/readyz` and messages.
    pub name: String,
    /// Line of the config file that declares the issuer, counted from 1.
    pub line: usize,
    /// The value that `iss` must have.
    pub issuer: String,
    /// Values of which the audience claim must have one.
    pub audience: Vec<String>,
    /// The claim that names the audience.
    pub audience_claim: String,
    /// Where the issuer's public keys are.
    pub jwks: JwksSource,
    /// Byte range of the value of `jwks`, for findings.
    pub jwks_at: Range<usize>,
    /// Algorithms that its tokens may have.
    pub algorithms: Vec<Algorithm>,
    /// Claims that templates and records may use.
    pub claims: Vec<String>,
    /// The claim that lists the client's scopes.
    pub scope_claim: String,
    /// Certificate authorities of the server that `jwks` names, in PEM. `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// A file, by its path as the file system knows it.
    File(PathBuf),
    /// An address, which the control thread fetches.
    Url(JwksUrl),
}

/// The address of a key set. Only the config names addresses, never a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    /// Whether the connection uses TLS. Without it, the host is this machine.
    pub https: bool,
    /// A host name or an IP address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl JwksUrl {
    /// Parses an address.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        const FORM: &str = "write it such as https://idp.example/jwks.json";
        let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(("it is no https:// address", FORM)),
        };
        let visible = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#@".contains(&b);
        if !rest.bytes().all(visible) {
            return Err((
                "it has a character that an address of keys can't have",
                FORM,
            ));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = match path.strip_prefix('?') {
            Some(_) => format!("/{path}"),
            None if path.is_empty() => "/".to_owned(),
            None => path.to_owned(),
        };
        let (host, port) = match authority
            .strip_prefix('[')
            .and_then(|it| it.split_once(']'))
        {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match (port, https) {
            (None, true) => Some(443),
            (None, false) => Some(80),
            (Some(port), _) => port.parse().ok().filter(|port| *port > 0),
        };
        let Some(port) = port.filter(|_| !host.is_empty()) else {
            return Err(("its host or port is invalid", FORM));
        };
        let local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if !https && !local {
            let message = "keys that come without TLS could be anyone's";
            return Err((message, "use https://, or a host on this machine"));
        }
        let host = host.to_owned();
        Ok(Self {
            https,
            host,
            port,
            path,
        })
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let (host, port, path) = (&self.host, self.port, &self.path);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}{path}")
        } else {
            write!(f, "{scheme}://{host}:{port}{path}")
        }
    }
}

/// A signature algorithm of JSON Web Tokens (RFC 7518 3.1, RFC 8037). All have public keys: with a
/// shared secret, a program that can check a token could also make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The name in tokens and keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Reads a name, which is case-sensitive (RFC 7515 4.1.1).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

/// Which clients may use a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether clients must authenticate. The route's own `auth`, or the gateway's.
    pub auth: Auth,
    /// Scopes that a client must have, all of them.
    pub scopes: Vec<String>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            scopes: Vec::new(),
        }
    }
}

/// What the reader knows of credentials before it reads the routes.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    /// `auth` of routes that have none of their own.
    pub(super) auth: Auth,
    /// Whether any client can authenticate: there is an issuer, a file of API keys, or an authority
    /// for client certificates.
    pub(super) any: bool,
    /// Claims that some issuer carries.
    pub(super) claims: Vec<String>,
    /// Whether there can be tickets: there is a fleet secret.
    pub(super) tickets: bool,
}

impl Credentials {
    pub(super) fn new(settings: &Settings, issuers: &[IssuerConfig]) -> Self {
        let sent = !issuers.is_empty() || settings.credentials.api_keys.is_some();
        // Certificates belong to a listener: they do not close the routes of a plain one.
        let any = sent || settings.tls.client_ca.is_some();
        let default = if sent { Auth::Required } else { Auth::None };
        let claims = issuers.iter().flat_map(|it| it.claims.clone());
        Self {
            auth: settings.auth.unwrap_or(default),
            any,
            claims: claims.collect(),
            tickets: settings.credentials.fleet_secret.is_some(),
        }
    }

    /// Before the settings are read.
    pub(super) const fn none() -> Self {
        Self {
            auth: Auth::None,
            any: false,
            claims: Vec::new(),
            tickets: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for (text, shown) in [
            ("https://idp.example", "https://idp.example:443/"),
            ("https://idp.example/a?b=c", "https://idp.example:443/a?b=c"),
            ("https://idp.example:8443/a", "https://idp.example:8443/a"),
            ("https://[2001:db8::1]/a", "https://[2001:db8::1]:443/a"),
            ("http://127.0.0.1:8080/a", "http://127.0.0.1:8080/a"),
            ("http://localhost/a", "http://localhost:80/a"),
            ("http://[::1]:1/", "http://[::1]:1/"),
        ] {
            let url = JwksUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), shown);
        }
        for text in [
            "http://idp.example/a",
            "http://127.0.0.1.evil.example/",
            "http://localhost@evil.example/",
            "https://user:secret@idp.example/",
            "https:///a",
            "https://idp.example:0/",
            "https://idp.example:99999/",
            "https://idp.example/a b",
            "https://idp.example/{iss}",
            "ftp://idp.example/",
        ] {
            assert!(JwksUrl::parse(text).is_err(), "{text}");
        }
    }
}
