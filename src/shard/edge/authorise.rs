//! Decides which client sent a request, and whether its route admits the client. This comes right
//! after routing: nothing is produced, read or asked for before.
//!
//! A request without a valid credential gets 401 on a route that requires one, whatever the cause.
//! A credential that is there and not valid is never ignored, also where it is optional: the client
//! would believe that it acts under its identity. On a route without authentication, credentials
//! are not looked at.

use std::borrow::Cow;
use std::sync::Arc;

use crate::auth::{Denial, Grant, KeyRef, Rejected, Scopes, Verifier};
use crate::config::{Access, Auth, Config};
use crate::http::{CorsGrant, Refusal, Request};
use crate::metrics::AuthDenial;
use crate::model::{Claims, ClientCertificate, Principal, UnixMillis};
use crate::route::{Failure, Refused, RouteIndex};

use super::site::Site;

/// The client of a request. `None`: it is anonymous.
#[derive(Clone, Debug, Default)]
pub(super) struct Client(Option<Arc<Grant>>);

impl Client {
    /// The identity and the claims for templates, records and limits.
    pub(super) fn principal(&self) -> &Principal {
        self.0.as_ref().map_or(&ANONYMOUS, |it| &it.principal)
    }

    /// What a stream of the client depends on. `None`: nothing.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.0.as_deref()
    }
}

static ANONYMOUS: Principal = Principal::ANONYMOUS;

/// Why a request is not admitted.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// The credential was rejected.
    Rejected(Rejected),
    /// A header that decides about the client breaks its grammar or is repeated.
    Malformed(Refusal),
}

impl NotAdmitted {
    /// The response. It is the same for every cause of a 401.
    pub(super) fn refused(&self) -> Refused {
        let denial = match self {
            Self::Malformed(refusal) => return (*refusal).into(),
            Self::Rejected(rejected) => rejected.denial,
        };
        match denial {
            Denial::NoKeys => {
                let detail = "the keys that check your credential are not known yet";
                Refused::because(Failure::NotReady, detail)
            }
            Denial::Scope | Denial::Origin => Failure::Forbidden.into(),
            _ => Failure::Unauthenticated.into(),
        }
    }

    /// The credential was valid, and has expired.
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Rejected(rejected) if rejected.denial == Denial::Expired)
    }

    /// The issuer whose keys may be newer than those known here, by its place in the config.
    pub(super) const fn unknown_key_of(&self) -> Option<usize> {
        match self {
            Self::Rejected(rejected) => rejected.issuer,
            Self::Malformed(_) => None,
        }
    }

    /// The cause for the metrics.
    pub(super) const fn label(&self) -> AuthDenial {
        match self {
            Self::Malformed(_) => AuthDenial::Malformed,
            Self::Rejected(rejected) => label(rejected.denial),
        }
    }
}

impl From<Denial> for NotAdmitted {
    fn from(denial: Denial) -> Self {
        Self::Rejected(denial.into())
    }
}

/// What decides about a client beside its request.
pub(super) struct Authority<'a> {
    /// Which page may read the response.
    pub(super) cors: CorsGrant,
    pub(super) verifier: &'a mut Verifier,
    /// The client certificate of the connection.
    pub(super) certificate: Option<&'a ClientCertificate>,
    pub(super) wall: UnixMillis,
}

impl Site {
    /// Which clients may use a route.
    pub(super) fn access(&self, route: RouteIndex) -> &Access {
        let config = &self.snapshot.config;
        match route {
            RouteIndex::Command(index) | RouteIndex::Location(index) => {
                &config.commands[index].access
            }
            RouteIndex::Query(index) => &config.queries[index].access,
            RouteIndex::Stream(index) | RouteIndex::Ticket(index) => &config.streams[index].access,
        }
    }

    /// The ticket of a request for a stream that has tickets, and the path that it must be for.
    fn ticket_of<'r>(
        &self,
        route: RouteIndex,
        request: &'r Request<'_>,
    ) -> Result<Option<(Cow<'r, str>, String)>, NotAdmitted> {
        let RouteIndex::Stream(index) = route else {
            return Ok(None);
        };
        let stream = &self.snapshot.config.streams[index];
        if stream.ticket.is_none() {
            return Ok(None);
        }
        let ticket = request
            .query
            .one("ticket")
            .map_err(NotAdmitted::Malformed)?;
        Ok(ticket.map(|ticket| (ticket, stream.path.to_string())))
    }

    /// The client of a request, if the route admits it.
    pub(super) fn authorise(
        &self,
        route: RouteIndex,
        request: &Request<'_>,
        authority: &mut Authority<'_>,
    ) -> Result<Client, NotAdmitted> {
        #[cfg(feature = "planted")]
        if let Some(client) = invented(request) {
            return Ok(client);
        }
        let access = self.access(route);
        if access.auth == Auth::None {
            return Ok(Client(None));
        }
        let config = &self.snapshot.config;
        let ticket = self.ticket_of(route, request)?;
        let grant = match credential(request, config)? {
            // A page that puts a ticket into the URL means it; its browser adds cookies anyway.
            Some(Credential {
                is_cookie: true, ..
            })
            | None
                if ticket.is_some() =>
            {
                let (ticket, path) = ticket.expect("just seen");
                let verified = authority
                    .verifier
                    .verify_ticket(&ticket, &path, authority.wall);
                Some(verified.map_err(NotAdmitted::Rejected)?)
            }
            Some(Credential { bytes, is_cookie }) => {
                let is_safe = request.method.is_safe();
                // A browser adds cookies by itself, also for pages of other origins.
                if is_cookie && !is_safe && !self.cors.may_use_cookies(request, authority.cors) {
                    return Err(Denial::Origin.into());
                }
                let verified = authority.verifier.verify(bytes, authority.wall);
                Some(verified.map_err(NotAdmitted::Rejected)?)
            }
            None => authority.certificate.map(of_certificate),
        };
        match grant {
            Some(grant) if grant.scopes.have(&access.scopes) => Ok(Client(Some(grant))),
            Some(_) => Err(Denial::Scope.into()),
            None if access.auth == Auth::Optional => Ok(Client(None)),
            None => Err(Denial::Missing.into()),
        }
    }
}

/// The grant of a client certificate, which the TLS handshake has verified.
fn of_certificate(certificate: &ClientCertificate) -> Arc<Grant> {
    let principal = Principal {
        identity: certificate.identity.clone(),
        claims: Claims::NONE,
    };
    Arc::new(Grant {
        principal,
        scopes: Scopes::default(),
        expires: Some(certificate.valid_until),
        key: KeyRef::Certificate,
    })
}

/// The client that a test of the fleet invents, to prove that no identity reaches the command of
/// another.
#[cfg(feature = "planted")]
fn invented(request: &Request<'_>) -> Option<Client> {
    if !crate::model::invents_identities() {
        return None;
    }
    let name = request.headers.get("x-fleet-identity")?;
    let name = std::str::from_utf8(name).ok()?;
    let certificate = ClientCertificate {
        identity: crate::model::Identity::new("fleet", name),
        valid_until: UnixMillis(i64::MAX),
    };
    Some(Client(Some(of_certificate(&certificate))))
}

/// A credential as a request carries it.
struct Credential<'r> {
    bytes: &'r [u8],
    /// A browser added it by itself, perhaps for a page of another origin.
    is_cookie: bool,
}

/// The credential of a request: `Authorization`, else the cookie.
fn credential<'r>(
    request: &Request<'r>,
    config: &Config,
) -> Result<Option<Credential<'r>>, NotAdmitted> {
    let header = request.headers.one("authorization");
    if let Some(value) = header.map_err(NotAdmitted::Malformed)? {
        let bytes = bearer(value).ok_or(Denial::Malformed)?;
        let is_cookie = false;
        return Ok(Some(Credential { bytes, is_cookie }));
    }
    let Some(name) = &config.settings.credentials.cookie else {
        return Ok(None);
    };
    let mut found = request
        .headers
        .get_all("cookie")
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let (known, value) = pair.trim_ascii().split_at_checked(name.len())?;
            (known == name.as_bytes()).then(|| value.strip_prefix(b"="))?
        });
    let (first, second) = (found.next(), found.next());
    if second.is_some() {
        // Which of two cookies counts must not depend on the reader.
        return Err(Denial::Malformed.into());
    }
    let is_cookie = true;
    Ok(first.map(|bytes| Credential { bytes, is_cookie }))
}

/// The token of `Authorization: Bearer …` (RFC 6750 2.1). The scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let token = rest.strip_prefix(b" ")?.trim_ascii_start();
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty();
    is_bearer.then_some(token)
}

const fn label(denial: Denial) -> AuthDenial {
    match denial {
        Denial::Missing => AuthDenial::Missing,
        Denial::Malformed => AuthDenial::Malformed,
        Denial::UnknownIssuer => AuthDenial::UnknownIssuer,
        Denial::UnknownKey => AuthDenial::UnknownKey,
        Denial::NoKeys => AuthDenial::NoKeys,
        Denial::Algorithm => AuthDenial::Algorithm,
        Denial::Signature => AuthDenial::Signature,
        Denial::Claims => AuthDenial::Claims,
        Denial::Audience => AuthDenial::Audience,
        Denial::Expired => AuthDenial::Expired,
        Denial::NotYetValid => AuthDenial::NotYetValid,
        Denial::Revoked => AuthDenial::Revoked,
        Denial::OtherRoute => AuthDenial::OtherRoute,
        Denial::Origin => AuthDenial::Origin,
        Denial::Scope => AuthDenial::Scope,
    }
}
