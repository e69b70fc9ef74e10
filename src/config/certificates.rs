//! Certificates besides the one of `[tls]`: `[[certificate]]` in the file.

use std::ops::Range;
use std::path::PathBuf;

use super::diagnose::Findings;
use super::kind::FilePath;
use super::read::{Reader, no_other_place};
use super::section::Section;

/// Most certificates besides the one of `[tls]`.
pub const CERTIFICATES_MAX: usize = 256;

/// A `[[certificate]]`: clients that ask for one of its DNS names get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The path of the certificate chain in PEM.
    pub certificate: PathBuf,
    /// Byte range of that path in the config file.
    pub certificate_at: Range<usize>,
    /// The path of its private key in PEM.
    pub key: PathBuf,
    /// Byte range of that path in the config file.
    pub key_at: Range<usize>,
}

impl<'a> Reader<'a, '_> {
    /// Reads every `[[certificate]]`.
    pub(super) fn certificates(&mut self, sections: Vec<Section<'a>>) -> Vec<CertificateFiles> {
        let findings = &mut *self.findings;
        if let Some(beyond) = sections.get(CERTIFICATES_MAX) {
            let message = format!("more than {CERTIFICATES_MAX} [[certificate]]");
            let help = "a certificate may have many names, and `*` stands for a label";
            findings.error(beyond.at.clone(), message, help);
        }
        let each = sections.into_iter().take(CERTIFICATES_MAX);
        each.filter_map(|section| certificate(section, findings))
            .collect()
    }
}

fn certificate(mut section: Section<'_>, findings: &mut Findings) -> Option<CertificateFiles> {
    let certificate = section.required("certificate", &FilePath, "\"shop.example.pem\"", findings);
    let key = section.required("key", &FilePath, "\"shop.example.key\"", findings);
    section.finish(no_other_place, findings);
    let (certificate, key) = (certificate?, key?);
    Some(CertificateFiles {
        certificate: certificate.value,
        certificate_at: certificate.at,
        key: key.value,
        key_at: key.at,
    })
}
