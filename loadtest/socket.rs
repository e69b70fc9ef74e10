//! Connections to a server, plain or with TLS, non-blocking once they are open.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::net::Url;

/// Time for one connection and its TLS handshake.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Where distributions keep the certificates of public authorities.
const SYSTEM_AUTHORITIES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// How servers prove themselves with https, and the client to them.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsOptions {
    /// Authorities of https servers (PEM). Default: the system's.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The client's certificate chain (PEM), for servers that require one.
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// The key of --cert (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    /// Accept any certificate of https servers.
    #[arg(long, conflicts_with = "cacert")]
    insecure: bool,
}

/// Opens connections: from the listed local addresses in turn, and with TLS for https.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: Result<Arc<ClientConfig>, String>,
    sources: Vec<IpAddr>,
    next_source: AtomicUsize,
}

/// An open connection. Reads and writes never block.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connector {
    pub(crate) fn new(tls: &TlsOptions, sources: &[IpAddr]) -> Result<Self> {
        // A missing file matters only if a URL is https, unless an option names the file.
        let config = tls.config();
        if tls.cacert.is_some() || tls.cert.is_some() {
            config
                .as_ref()
                .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        }
        Ok(Self {
            tls: config.map_err(|error| format!("{error:#}")),
            sources: sources.to_vec(),
            next_source: AtomicUsize::new(0),
        })
    }

    /// Connects and, for https, completes the handshake. The error names the address and what to
    /// check.
    pub(crate) fn connect(&self, url: &Url) -> Result<Socket> {
        let socket = self
            .open(url.address)
            .map_err(|error| explain(&error, url))?;
        if !url.tls {
            socket.set_nonblocking(true)?;
            return Ok(Socket::Plain(socket));
        }
        let config = match &self.tls {
            Ok(config) => Arc::clone(config),
            Err(error) => bail!("{error}"),
        };
        socket.set_read_timeout(Some(CONNECT_TIME_MAX))?;
        socket.set_write_timeout(Some(CONNECT_TIME_MAX))?;
        let name = ServerName::try_from(url.host.clone())
            .with_context(|| format!("`{}` is no name for TLS", url.host))?;
        let mut connection = ClientConnection::new(config, name)?;
        let mut socket = socket;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut socket)
                .with_context(|| format!("TLS handshake with {}", url.authority))?;
        }
        socket.set_nonblocking(true)?;
        Ok(Socket::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    fn open(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = RawSocket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if !self.sources.is_empty() {
            let turn = self.next_source.fetch_add(1, Ordering::Relaxed);
            let source = self.sources[turn % self.sources.len()];
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&to.into(), CONNECT_TIME_MAX)?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }
}

fn explain(error: &io::Error, url: &Url) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there: is the gateway running?",
        io::ErrorKind::TimedOut => "no answer within 10 s",
        io::ErrorKind::AddrNotAvailable => {
            "no local port is left: give more addresses with --source 127.0.0.2, or widen \
             net.ipv4.ip_local_port_range"
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "too many open files: raise ulimit -n"
        }
        _ => "see the cause",
    };
    anyhow::anyhow!("can't connect to {}: {fix} ({error})", url.address)
}

impl Socket {
    /// Reads available bytes. `Ok(0)`: the server has closed the connection.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(socket) => match socket.read(into) {
                // A server that closes without TLS's own end has closed all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }

    /// Writes, and returns how many bytes were taken.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(socket) => {
                let taken = socket.write(bytes)?;
                match socket.flush() {
                    // The rest is sent with the next read or write.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(taken),
                    flushed => flushed.map(|()| taken),
                }
            }
        }
    }

    /// Whether a read may find bytes that the kernel has handed over already.
    pub(crate) const fn buffers(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(socket) => socket.sock.as_fd(),
        }
    }
}

impl TlsOptions {
    fn config(&self) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let config = match (&self.cert, &self.cert_key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("can't read --cert-key {}", key.display()))?;
                builder.with_client_auth_cert(chain, key)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let system = || {
            SYSTEM_AUTHORITIES
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
        };
        let path = self.cacert.clone().or_else(system);
        let path = path.context("no certificates of authorities here: give --cacert")?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&path)? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.with_context(|| format!("can't read {}", path.display()))?;
    if read.is_empty() {
        bail!("{} has no certificate", path.display());
    }
    Ok(read)
}

/// Accepts any certificate, for --insecure. Signatures are checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
