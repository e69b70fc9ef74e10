//! Checks of one cluster's TLS and SASL settings against each other. `section` is the table of its
//! keys, and `at` finds a key's range in the file. A table with an invalid value is passed as
//! `None`: that error is already reported, and a key that seems missing beside it may be there.

use std::ops::Range;

use super::diagnose::Findings;
use super::settings::{KafkaSasl, KafkaTls, Mechanism};

type KeyRange<'a> = &'a dyn Fn(&str) -> Option<Range<usize>>;

pub(super) fn connection(
    tls: Option<&KafkaTls>,
    sasl: Option<&KafkaSasl>,
    section: &str,
    at: KeyRange<'_>,
    findings: &mut Findings,
) {
    let mut check = SecurityCheck {
        section,
        at,
        findings,
    };
    if let Some(tls) = tls {
        check.tls(tls);
    }
    if let Some(sasl) = sasl {
        check.sasl(sasl, tls.is_none_or(|tls| tls.enabled));
    }
}

struct SecurityCheck<'a> {
    section: &'a str,
    at: KeyRange<'a>,
    findings: &'a mut Findings,
}

impl SecurityCheck<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.section)
    }

    fn error(&mut self, key: &str, message: String, help: impl Into<String>) {
        let at = (self.at)(&self.key(key));
        self.findings.error(at, message, help);
    }

    fn tls(&mut self, tls: &KafkaTls) {
        let given = [
            ("tls.ca", tls.ca.is_some()),
            ("tls.certificate", tls.certificate.is_some()),
            ("tls.key", tls.key.is_some()),
        ];
        let given = given.into_iter().find(|(_, is)| *is);
        if let (false, Some((key, _))) = (tls.enabled, given) {
            let (name, enabled) = (self.key(key), self.key("tls.enabled"));
            let message = format!("`{name}` is set, but TLS is not enabled");
            self.error(key, message, format!("set {enabled} = true, or remove it"));
        }
        let (has, lacks) = match (&tls.certificate, &tls.key) {
            (Some(_), None) => ("tls.certificate", "tls.key"),
            (None, Some(_)) => ("tls.key", "tls.certificate"),
            _ => return,
        };
        let (name, missing) = (self.key(has), self.key(lacks));
        let message = format!("`{name}` is set without `{missing}`");
        self.error(has, message, format!("set {missing} to the PEM file"));
    }

    fn sasl(&mut self, sasl: &KafkaSasl, tls: bool) {
        let keys = [
            ("sasl.username", sasl.username.is_some()),
            ("sasl.password", sasl.password.is_some()),
            ("sasl.token_file", sasl.token_file.is_some()),
            ("sasl.token_command", !sasl.token_command.is_empty()),
        ];
        let (wanted, others) = match sasl.mechanism {
            None => (&keys[..0], &keys[..]),
            Some(Mechanism::OauthBearer) => (&keys[2..], &keys[..2]),
            Some(_) => (&keys[..2], &keys[2..]),
        };
        let mechanism = self.key("sasl.mechanism");
        for (key, _) in others.iter().filter(|(_, is)| *is) {
            let message = format!("`{}` is not used by this mechanism", self.key(key));
            self.error(key, message, format!("remove it, or set {mechanism}"));
        }
        match sasl.mechanism {
            Some(Mechanism::OauthBearer) => match wanted.iter().filter(|(_, is)| *is).count() {
                0 => {
                    let (file, command) = (self.key(wanted[0].0), self.key(wanted[1].0));
                    let message = "`oauthbearer` has no token".to_owned();
                    self.error(
                        "sasl.mechanism",
                        message,
                        format!("set {file} or {command}"),
                    );
                }
                1 => {}
                _ => {
                    let message = "the token comes from a file and from a command".to_owned();
                    self.error("sasl.token_command", message, "remove one of them");
                }
            },
            _ => {
                for (key, _) in wanted.iter().filter(|(_, is)| !*is) {
                    let message = format!("the mechanism needs `{}`", self.key(key));
                    self.error("sasl.mechanism", message, format!("set {}", self.key(key)));
                }
            }
        }
        let bare = matches!(
            sasl.mechanism,
            Some(Mechanism::Plain | Mechanism::OauthBearer)
        );
        if bare && !tls {
            let at = (self.at)(&mechanism);
            let message = "the password or token is sent to the brokers without encryption";
            let help = format!(
                "set {} = true, or a scram mechanism",
                self.key("tls.enabled")
            );
            self.findings.warning(at, message, help);
        }
    }
}
