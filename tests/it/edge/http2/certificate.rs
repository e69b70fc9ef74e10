//! A certificate for the test's listener.

/// A self-signed certificate for `localhost`, in files.
pub struct Certificate(tempfile::TempDir);

impl Certificate {
    pub fn new() -> Self {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("write a PEM file");
        };
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        Self(folder)
    }

    /// The table `[tls]` of a gateway.
    pub fn settings(&self) -> String {
        let folder = self.0.path().display();
        format!(
            "[tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{folder}/cert.pem\"\n\
             key = \"{folder}/key.pem\"\n"
        )
    }
}
