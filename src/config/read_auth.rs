//! Reads `[[issuer]]`, and what a route asks of its clients (`auth`, `scopes`).

use super::PathPattern;
use super::diagnose::line_of;
use super::issuers::{
    Access, Algorithm, ISSUERS_MAX, IssuerConfig, JwksSource, JwksUrl, OWN_ISSUERS,
};
use super::kind::{ListOf, OneOf, Text};
use super::read::{Claim, Reader, no_other_place};
use super::section::{Placed, Section};
use super::settings::Auth;

/// The scopes that a route requires, at most.
const SCOPES_MAX: usize = 16;
const CLAIMS_MAX: usize = 16;

/// The words of `algorithms`. `OneOf` compares in lower case.
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("rs256", Algorithm::Rs256),
    ("rs384", Algorithm::Rs384),
    ("rs512", Algorithm::Rs512),
    ("ps256", Algorithm::Ps256),
    ("ps384", Algorithm::Ps384),
    ("ps512", Algorithm::Ps512),
    ("es256", Algorithm::Es256),
    ("es384", Algorithm::Es384),
    ("eddsa", Algorithm::EdDsa),
];

impl<'a> Reader<'a, '_> {
    /// Reads every `[[issuer]]`.
    pub(super) fn issuers(&mut self, sections: Vec<Section<'a>>) -> Vec<IssuerConfig> {
        let mut issuers: Vec<(IssuerConfig, Placed<String>, Placed<String>)> = Vec::new();
        for mut section in sections {
            let Some((issuer, name, iss)) = self.issuer(&mut section) else {
                section.finish(no_other_place, self.findings);
                continue;
            };
            section.finish(no_other_place, self.findings);
            // Two key sets for one `iss` would make it a guess which of them counts.
            for (what, is, was) in issuers.iter().flat_map(|(_, other, other_iss)| {
                [("name", &name, other), ("issuer", &iss, other_iss)]
            }) {
                if is.value == was.value {
                    let message = format!("two issuers have the {what} `{}`", is.value);
                    let help = "give each its own, or list more values in `audience`";
                    let finding = self.findings.error(is.at.clone(), message, help);
                    finding.also(Some(was.at.clone()), "the first is here");
                }
            }
            issuers.push((issuer, name, iss));
        }
        if issuers.len() > ISSUERS_MAX {
            let at = issuers[ISSUERS_MAX].1.at.clone();
            let message = format!("more than {ISSUERS_MAX} [[issuer]]");
            let help = "split the routes over several gateways";
            self.findings.error(at, message, help);
        }
        issuers.into_iter().map(|(issuer, ..)| issuer).collect()
    }

    fn issuer(
        &mut self,
        section: &mut Section<'a>,
    ) -> Option<(IssuerConfig, Placed<String>, Placed<String>)> {
        let name = section.required("name", &Text(64), "\"idp\"", self.findings);
        let example = "\"https://idp.example/realms/shop\"";
        let iss = section.required("issuer", &Text(512), example, self.findings);
        let audiences = ListOf(Text(256), 16);
        let audience = section.required("audience", &audiences, "[\"orders-api\"]", self.findings);
        let audience_claim = section.read("audience_claim", &Text(64), self.findings);
        let example = "\"https://idp.example/jwks.json\"";
        let jwks = section.required("jwks", &Text(2048), example, self.findings);
        let listed = ListOf(OneOf(ALGORITHMS), ALGORITHMS.len());
        let algorithms = section.read("algorithms", &listed, self.findings);
        let claims = section.read("claims", &ListOf(Text(64), CLAIMS_MAX), self.findings);
        let scope_claim = section.read("scope_claim", &Text(64), self.findings);
        let ca = section.read("ca", &Text(4096), self.findings);
        let (name, iss, audience, jwks) = (name?, iss?, audience?, jwks?);
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !name.value.bytes().all(legal) {
            let message = format!("`{}` is not a valid issuer name", name.value);
            let help = "use letters, digits, `.`, `_` and `-`";
            self.findings.error(name.at.clone(), message, help);
        }
        if OWN_ISSUERS.contains(&&*iss.value) {
            let message = format!("`{}` is an issuer of the gateway itself", iss.value);
            let help = "write the value of the claim `iss` in the issuer's tokens";
            self.findings.error(iss.at.clone(), message, help);
        }
        for (at, empty, what) in [
            (&audience.at, audience.value.is_empty(), "audience"),
            (
                algorithms.as_ref().map_or(&section.at, |it| &it.at),
                algorithms.as_ref().is_some_and(|it| it.value.is_empty()),
                "algorithms",
            ),
        ] {
            if empty {
                let message = format!("`{what}` is empty, so no token would be accepted");
                self.findings
                    .error(at.clone(), message, "list at least one");
            }
        }
        let source = self.jwks(&jwks, ca.as_ref())?;
        let claim = |read: Option<Placed<String>>, default: &str| {
            read.map_or_else(|| default.to_owned(), |it| it.value)
        };
        let issuer = IssuerConfig {
            name: name.value.clone(),
            line: line_of(self.text(), section.at.start),
            issuer: iss.value.clone(),
            audience: audience.value,
            audience_claim: claim(audience_claim, "aud"),
            jwks: source,
            jwks_at: jwks.at,
            algorithms: algorithms.map_or_else(|| Algorithm::ALL.to_vec(), |it| it.value),
            claims: claims.map_or_else(Vec::new, |it| it.value),
            scope_claim: claim(scope_claim, "scope"),
            ca: ca.map(|it| self.beside_the_file(it.value.as_ref())),
        };
        Some((issuer, name, iss))
    }

    fn jwks(&mut self, jwks: &Placed<String>, ca: Option<&Placed<String>>) -> Option<JwksSource> {
        let is_file = !jwks.value.contains("://");
        if let Some(ca) = ca
            && (is_file || jwks.value.starts_with("http://"))
        {
            let message = "`ca` is for keys that are fetched over TLS";
            let help = "remove it, or name an https:// address in `jwks`";
            self.findings.error(ca.at.clone(), message, help);
        }
        if is_file {
            let path = self.beside_the_file(jwks.value.as_ref());
            return Some(JwksSource::File(path));
        }
        match JwksUrl::parse(&jwks.value) {
            Ok(url) => Some(JwksSource::Url(url)),
            Err((why, help)) => {
                let message = format!("`jwks`: {why}");
                self.findings.error(jwks.at.clone(), message, help);
                None
            }
        }
    }

    /// Reads the path whose `POST` returns a ticket for a stream.
    pub(super) fn ticket(
        &mut self,
        section: &mut Section<'a>,
        access: &Access,
    ) -> Option<PathPattern> {
        let text = section.read("ticket", &Text(600), self.findings)?;
        let path = match PathPattern::parse(&text.value) {
            Ok(path) if path.params().next().is_none() => path,
            Ok(_) => {
                let message = "the path of a ticket has no parameters";
                let help = "write a path such as \"/events/ticket\"";
                self.findings.error(text.at, message, help);
                return None;
            }
            Err(error) => {
                self.findings.error(text.at, error.message, error.help);
                return None;
            }
        };
        let (message, help) = if access.auth != Auth::Required {
            (
                "a ticket stands for a client, and this route needs none",
                "add `auth = \"required\"` to the route, or remove `ticket`",
            )
        } else if !self.credentials.tickets {
            (
                "tickets need a secret that all instances share",
                "set credentials.fleet_secret, for example { env = \"FLEET_SECRET\" }",
            )
        } else {
            self.claims.push(Claim {
                method: "POST",
                path: path.clone(),
                line: line_of(self.text(), text.at.start),
                route_at: text.at,
                name: None,
            });
            return Some(path);
        };
        self.findings.error(text.at, message, help);
        None
    }

    /// Reads what a route asks of its clients: `auth` and `scopes`.
    pub(super) fn access(&mut self, section: &mut Section<'a>) -> Access {
        let auth = section.read("auth", &OneOf(ROUTE_AUTH), self.findings);
        let scopes = section.read("scopes", &ListOf(Text(128), SCOPES_MAX), self.findings);
        let own = auth.as_ref().map(|it| it.value);
        let effective = own.unwrap_or(self.credentials.auth);
        if let Some(auth) = auth.as_ref().filter(|it| it.value != Auth::None)
            && !self.credentials.any
        {
            let message = "no client could authenticate: the config names no credentials";
            let help = "add an [[issuer]] or credentials.api_keys";
            self.findings.error(auth.at.clone(), message, help);
        }
        if let Some(scopes) = &scopes {
            let bad = |scope: &&String| !scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
            if let Some(scope) = scopes.value.iter().find(bad) {
                let message = format!("`{scope}` is not a scope");
                let help = "a scope is one word (RFC 6749 3.3)";
                self.findings.error(scopes.at.clone(), message, help);
            }
            if !scopes.value.is_empty() && effective != Auth::Required {
                let message = "the route has scopes, but clients need not authenticate";
                let help = "add `auth = \"required\"`, or remove `scopes`";
                self.findings.error(scopes.at.clone(), message, help);
            }
        }
        Access {
            auth: effective,
            scopes: scopes.map_or_else(Vec::new, |it| it.value),
        }
    }
}

/// The words of a route's `auth`.
const ROUTE_AUTH: &[(&str, Auth)] = &[
    ("none", Auth::None),
    ("optional", Auth::Optional),
    ("required", Auth::Required),
];
